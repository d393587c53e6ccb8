"""Patterns of a bar, as text: drum grooves and fills, bass lines, comping and arpeggios.

A character is a sixteenth: sixteen a bar of four beats, twelve a bar of three; several bars' worth
go round. Rhythm characters: ``X`` accent, ``x`` plain, ``g`` ghost, ``o`` plain but only by chance;
``_`` holds what sounds, ``.`` is a rest. Bass lines say which chord tone instead (1 3 5 7, 8 the
octave, ``w`` a walking step, ``a`` an approach to the next root), arpeggios which voice from below.
"""

from collections.abc import Mapping

Groove = Mapping[str, str]  # drum voice -> pattern

STRENGTH = {"X": 1.15, "x": 0.95, "g": 0.55, "o": 0.75}

ROCK: tuple[Groove, ...] = (
    {"kick": "X.......X.x.....", "snare": "....X.......X...", "hat": "x.x.x.x.x.x.x.x."},
    {"kick": "X.....x.X.......", "snare": "....X.......X..o", "hat": "X.x.X.x.X.x.X.x."},
    {"kick": "X..x..x.X....o..", "snare": "....X.......X...", "ride": "x.x.x.x.x.x.x.x."},
    {"kick": "X.x.....X.x.....", "snare": "....X.......X...", "open": "X...X...X...X..."},
)
ROCK_FILLS: tuple[Groove, ...] = (
    {"snare": "xxxx....", "high tom": "....xx..", "low tom": "......XX", "kick": "x...x..."},
    {"snare": "x.x.xxXX", "kick": "x...x..."},
    {"high tom": "xx......", "mid tom": "..xx....", "low tom": "....xxXX"},
    {"snare": "....x.XX", "hat": "x.x.....", "kick": "x......."},
)
FUNK_GROOVES: tuple[Groove, ...] = (
    {"kick": "X..x..x...x.....", "snare": "....X..g.g..X..g", "hat": "x.xxx.xxx.xxx.xx"},
    {
        "kick": "X.x....x..x..x..",
        "snare": "....X..g....X.g.",
        "hat": "xxxxxxxoxxxxxx..",
        "open": "..............x.",
    },
    {"kick": "X.....x..xx.....", "snare": "...gX..g.g.gX...", "hat": "X.x.X.x.X.x.X.x."},
)
FUNK_FILLS: tuple[Groove, ...] = (
    {"snare": "x.gxx.xX", "kick": "x...x.x."},
    {"snare": "xx.xx.xx", "high tom": "..x..x..", "kick": "x.....x."},
)
TECHNO_GROOVES: tuple[Groove, ...] = (
    {
        "kick": "X...X...X...X...",
        "open": "..x...x...x...x.",
        "hat": "xxxxxxxxxxxxxxxx",
        "clap": "....x.......x...",
    },
    {"kick": "X...X...X...X...", "hat": "..x...x...x...x.", "stick": "...x..x...x..x.."},
    {
        "kick": "X...X...X...X..o",
        "open": "..X...X...X...X.",
        "clap": "....X.......X...",
        "ride": "x.x.x.x.x.x.x.x.",
    },
)
ELECTRONIC_FILLS: tuple[Groove, ...] = (
    {"snare": "g.g.xxxX", "kick": "X...X..."},
    {"clap": "x..x..xx", "kick": "X......."},
    {"hat": "xxxxxxxx", "open": "......X."},
)
HOUSE_GROOVES: tuple[Groove, ...] = (
    {
        "kick": "X...X...X...X...",
        "open": "..X...X...X...X.",
        "clap": "....X.......X...",
        "hat": "x..xx..xx..xx..x",
    },
    {
        "kick": "X...X...X...X...",
        "open": "..X...X...X...X.",
        "clap": "....X.......X..o",
        "stick": "...x......x.....",
    },
    {"kick": "X...X...X...X...", "hat": "x.Xxx.Xxx.Xxx.Xx", "snare": "....X.......X..."},
)
JAZZ_GROOVES: tuple[Groove, ...] = (
    {
        "ride": "X...x.x.X...x.x.",
        "pedal": "....x.......x...",
        "snare": "..o.....o.....o.",
        "kick": "g...g...g...g...",
    },
    {
        "ride": "X...X.x.X...X.x.",
        "pedal": "....x.......x...",
        "snare": "......g...o.....",
        "kick": "g.......g.....o.",
    },
    {"ride": "x...X.x.x.x.X.x.", "pedal": "....x.......x...", "stick": "............x..."},
)
JAZZ_FILLS: tuple[Groove, ...] = (
    {"snare": "x.gxx.X.", "ride": "x.......", "kick": "....x.x."},
    {"snare": "x.x.....", "high tom": "....x.x.", "low tom": "......x.", "pedal": "....x..."},
)
LOFI_GROOVES: tuple[Groove, ...] = (
    {"kick": "X.....x..x......", "snare": "....X.......X...", "hat": "x.x.x.x.x.x.x.x."},
    {"kick": "X......x..x.....", "snare": "....X.......X..g", "hat": "x.xxx.x.x.xxx.x."},
    {"kick": "X..x......x.....", "stick": "....X.......X...", "hat": "x.x.x.x.x.x.x.o."},
)
WALTZ_GROOVES: tuple[Groove, ...] = (
    {"kick": "X...........", "stick": "....x...x...", "hat": "x...x...x..."},
    {"kick": "X...........", "snare": "....g...g...", "ride": "x...x.x.x..."},
)
WALTZ_FILLS: tuple[Groove, ...] = ({"snare": "g.x.x.X.", "kick": "x......."},)
BOSSA_GROOVES: tuple[Groove, ...] = (
    {"kick": "X.....x.X.....x.", "stick": "x.....x.....x...", "hat": "x.x.x.x.x.x.x.x."},
    {"kick": "X.....x.X.....x.", "stick": "..x...x...x..x..", "hat": "xgxgxgxgxgxgxgxg"},
)
BOSSA_FILLS: tuple[Groove, ...] = ({"stick": "x.x..x.x", "kick": "x.....x."}, {"snare": "g.x.g.xx"})
REGGAE_GROOVES: tuple[Groove, ...] = (
    {"kick": "........X.......", "stick": "........X.......", "hat": "x.x.X.x.x.x.X.x."},
    {"kick": "X.......X.......", "snare": "........X.......", "hat": "x.xxX.x.x.xxX.x."},
    {"kick": "X...X...X...X...", "stick": "........X.....o.", "hat": "x.x.x.x.x.x.x.x."},
)
REGGAE_FILLS: tuple[Groove, ...] = (
    {"high tom": "x..x....", "low tom": "....x.x.", "snare": "..x....."},
    {"snare": "x.xxx.X."},
)
CHIP_GROOVES: tuple[Groove, ...] = (
    {"kick": "X...x...X...x...", "snare": "....X.......X...", "hat": "x.x.x.x.x.x.x.x."},
    {"kick": "X..x..x.X..x..x.", "snare": "....X.......X.xx", "hat": "xxxxxxxxxxxxxxxx"},
)
DNB_GROOVES: tuple[Groove, ...] = (
    {"kick": "X.........x.....", "snare": "....X..g.g..X..g", "hat": "x.x.x.x.x.x.x.x."},
    {
        "kick": "X.x.......x.....",
        "snare": "....X..g.g..X.g.",
        "ride": "x.x.x.x.x.x.x.x.",
        "hat": ".x.x.x.x.x.x.x.x",
    },
    {"kick": "X.........xx....", "snare": "....X..x......X.", "hat": "x.x.x.x.x.x.x.x."},
)
DNB_FILLS: tuple[Groove, ...] = (
    {"snare": "x.xx.xXX", "kick": "X...x..."},
    {"snare": "xxxxxxXX", "kick": "X......."},
)
EPIC_GROOVES: tuple[Groove, ...] = (
    {"low tom": "X..x..x.X..x..x.", "kick": "X.......X......."},
    {"low tom": "X..x..x.X...x.x.", "mid tom": "..........x.....", "kick": "X.....x.X......."},
)
EPIC_FILLS: tuple[Groove, ...] = ({"low tom": "x.x.xxXX", "mid tom": "x.x.xxXX"},)
TRAIN_GROOVES: tuple[Groove, ...] = (
    {"kick": "X.......X.......", "snare": "....x.x.....x.xg", "hat": "x.x.x.x.x.x.x.x."},
    {"kick": "X.......X.......", "snare": "g.x.X.x.g.x.X.x."},
)

SHAKERS: tuple[Groove, ...] = (
    {"maracas": "x.x.X.x.x.x.X.x."},
    {"tambourine": "..x...x...x...x."},
    {"cabasa": "xgxgxgxgxgxgxgxg"},
)
LATIN: tuple[Groove, ...] = (
    {"claves": "x..x..x...x.x...", "cabasa": "xgXgxgXgxgXgxgXg"},
    {
        "muted conga": "..x...x...x...x.",
        "conga": "......xx........",
        "low conga": "..............xx",
    },
    {"triangle": "x.x.X.x.x.x.X.x.", "woodblock": "x..x..x...x..x.."},
)
BONGOS: tuple[Groove, ...] = (
    {"bongo": "x.gxx.gxx.gxx.gx", "low bongo": "......x.......x.", "cowbell": "x...x...x...x..."},
    {
        "conga": "...x..x....x..x.",
        "low conga": "x.......x.......",
        "tambourine": "....x.......x...",
    },
)

# Bass lines
WALKING = ("1___w___w___a___", "1___w___w_w_a___", "1___5___w___a___")
PUMPING = ("1_1_1_1_1_1_1_1_", "1_1_1_1_1_1_5_a_", "1___1_1_1___5_1_")
OFFBEAT = ("..1_..1_..1_..1_", "1.1_..1_..1_..1_", "..1_..8_..1_..8_")
SUB = ("1_______________", "1_____1_________", "1_________1___5_")
ROLLING = (".111.111.111.111", "1.1.1.1.1.1.1.8.", "..11..11..11..81")
FUNKY = ("1_..1..1..8.7.5.", "1..11...8..1.7a_", "1_.1..8...1.5.7.")
ROOT_FIFTH = ("1_____5_5_____1_", "1_____5_5_____a_")
ROOTS_DUB = ("1_..1_3_5_......", "1_____1_3_5_8_5_", "..1_1_..5_3_1_..", "1_5_..3_1_..5_..")
WALTZ_BASS = ("1___........", "1___....5___", "1_______....")
LAZY = ("1_____1_....5___", "1_______..1_5_a_", "1___..1_3___5___")
OCTAVES = ("1.8.1.8.1.8.1.8.", "1.1.8.1.1.1.8.5.", "1_5_8_5_1_5_8_5_")
REESE = ("1_________1_____", "1_____1_..8_____", "1__1____..5_a___")
BOOM_CHICK = ("1_..5_..1_..5_..", "1_..5_..1_..3_a_")
HELD = ("1_______________",)

# Comping
SUSTAINED = ("x_______________",)
HALVES = ("x_______x_______",)
QUARTERS = ("X___x___X___x___", "x___x___x___x___")
EIGHTHS = ("X_x_x_x_X_x_x_x_", "X___x_x_X___x_x_", "X_____x_X_____x_")
CHARLESTON = ("X_....x_........", "......x_......x_", "X_....x_..x_....", "....x_......x_..")
STABS = ("...x..x....x..x.", "X..x..x...x.....", "X_....X_....X_..")
HOUSE_STABS = ("X__x__x___x__x__", "..X_..X_..X_..X_", "X_.X_.X_..X_.X_.")
FUNK_CHOPS = ("..g.X.g...gxX.g.", "x.gxg.x.g.x.gxg.", "....X......xX...")
BOSSA_COMP = ("X__x__x___x__x__", "x_..x_..x_x_..x_", "X__x__x__x__x___")
SKANK = ("....X.......X...", "..x...x...x...x.", "....X_......X_x_")
WALTZ_COMP = ("....x_..x_..", "....x___x___", "x___x___x___")
LAID_BACK = ("x_______..x_____", "X_____x_________", "x_________x_____")
CHICK = ("....X_......X_..", "..x...x...x...x.")

# Arpeggios
UP = ("0123012301230123", "0_1_2_3_0_1_2_3_", "0120120120120120")
UP_DOWN = ("0_1_2_3_4_3_2_1_", "0123432101234321", "0_2_1_3_2_4_3_1_")
ALBERTI = ("0_2_1_2_0_2_1_2_", "0_1_2_1_0_1_2_1_")
BROKEN = ("0___1___2___3___", "0_1_2_3_4_______", "0___2___1___3___")
WALTZ_BROKEN = ("0_1_2_3_2_1_", "0___1_2_3_2_")
SEQUENCE = ("0.02.0230.02.013", "0030020100300201", "0..1..2..1..2.3.")
PICKING = ("0_2_1_3_0_2_1_3_", "0_1_2_3_1_2_3_2_")

# Melody: rhythms of a bar
LYRICAL = (
    "x_______x___x___",
    "x___x___x_______",
    "x_____x_x_______",
    "x___x_x_x___x___",
    "..x_x_x_x_______",
    "x_x_x_x_x_______",
)
VOCAL = (
    "x_x_x___x_x_x___",
    "..x_x_x_x___x___",
    "x__x__x_x_______",
    "x_x_x_x_x_x_x___",
    "....x_x_x__x__x_",
    "x_____x_..x_x_x_",
)
SWUNG = (
    "x_x_x_x_x___..x_",
    "..x_x_x_x_x_x_x_",
    "x___..x_x_x_x___",
    "....x_x_x_x_..x_",
    "x_x___x_x_x___x_",
    "x_x_x_x_x_x_x_x_",
)
SYNCOPATED = (
    "x__x__x___x__x__",
    "..x__x__x__x____",
    "x_x__x_x__x_x___",
    "x__x__x_..x_x___",
    "x_.x_.x_.x_.x_x_",
)
RIFFS = (
    "x_x_.x_x..x_x_..",
    "xx.x..x.xx.x....",
    "x.x.xx.x..x.x.x.",
    "x__x__x__x__x_x_",
    "x.xx.x.xx.x.x...",
)
FLOATING = (
    "x_______________",
    "x_________x_____",
    "x_______x_______",
    "....x___________",
    "x_____x_________",
)
RUNNING = (
    "x_x_x_x_x_x_x_x_",
    "x___x_x_x_x_x_x_",
    "xxxxx_x_x___x___",
    "x_x_xxxxx_x_x___",
    "x___xxxxx_x_x_x_",
)
WALTZING = (
    "x_______x___",
    "x___x___x___",
    "x___________",
    "x_____x_x_x_",
    "x___x_x_x_x_",
    "..x_x_x_x_x_",
)
