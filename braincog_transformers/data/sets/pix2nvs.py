"""UCF101-DVS and HMDB-DVS: videos of human actions, recorded from a screen."""

from ..registry import EventSet, register_dataset

UCF101 = (
    "ApplyEyeMakeup", "ApplyLipstick", "Archery", "BabyCrawling", "BalanceBeam", "BandMarching", "BaseballPitch",
    "Basketball", "BasketballDunk", "BenchPress", "Biking", "Billiards", "BlowDryHair", "BlowingCandles",
    "BodyWeightSquats", "Bowling", "BoxingPunchingBag", "BoxingSpeedBag", "BreastStroke", "BrushingTeeth",
    "CleanAndJerk", "CliffDiving", "CricketBowling", "CricketShot", "CuttingInKitchen", "Diving", "Drumming",
    "Fencing", "FieldHockeyPenalty", "FloorGymnastics", "FrisbeeCatch", "FrontCrawl", "GolfSwing", "Haircut",
    "Hammering", "HammerThrow", "HandstandPushups", "HandstandWalking", "HeadMassage", "HighJump", "HorseRace",
    "HorseRiding", "HulaHoop", "IceDancing", "JavelinThrow", "JugglingBalls", "JumpingJack", "JumpRope", "Kayaking",
    "Knitting", "LongJump", "Lunges", "MilitaryParade", "Mixing", "MoppingFloor", "Nunchucks", "ParallelBars",
    "PizzaTossing", "PlayingCello", "PlayingDaf", "PlayingDhol", "PlayingFlute", "PlayingGuitar", "PlayingPiano",
    "PlayingSitar", "PlayingTabla", "PlayingViolin", "PoleVault", "PommelHorse", "PullUps", "Punch", "PushUps",
    "Rafting", "RockClimbingIndoor", "RopeClimbing", "Rowing", "SalsaSpin", "ShavingBeard", "Shotput",
    "SkateBoarding", "Skiing", "Skijet", "SkyDiving", "SoccerJuggling", "SoccerPenalty", "StillRings",
    "SumoWrestling", "Surfing", "Swing", "TableTennisShot", "TaiChi", "TennisSwing", "ThrowDiscus",
    "TrampolineJumping", "Typing", "UnevenBars", "VolleyballSpiking", "WalkingWithDog", "WallPushups",
    "WritingOnBoard", "YoYo",
)  # fmt: skip
HMDB51 = (
    "brush_hair", "cartwheel", "catch", "chew", "clap", "climb", "climb_stairs", "dive", "draw_sword", "dribble",
    "drink", "eat", "fall_floor", "fencing", "flic_flac", "golf", "handstand", "hit", "hug", "jump", "kick",
    "kick_ball", "kiss", "laugh", "pick", "pour", "pullup", "punch", "push", "pushup", "ride_bike", "ride_horse",
    "run", "shake_hands", "shoot_ball", "shoot_bow", "shoot_gun", "sit", "situp", "smile", "smoke", "somersault",
    "stand", "swing_baseball", "sword", "sword_exercise", "talk", "throw", "turn", "walk", "wave",
)  # fmt: skip

_ARCHIVES = "unpack the archives that github.com/PIX2NVS/NVS2Graph links to"
_CITATION = (
    "Bi et al., Graph-based Spatio-Temporal Feature Learning for Neuromorphic Vision Sensing (IEEE Transactions on "
    "Image Processing 2020)"
)

register_dataset(
    EventSet(
        name="UCF101DVS", num_classes=101, size=(180, 240), classes=UCF101, samples=(9740, 3783),
        tree="UCF101DVS/{train,val}/<ApplyEyeMakeup..YoYo>/*.mat",
        source=f"{_ARCHIVES}, and move the recordings of UCF101's testlist01.txt to val", citation=_CITATION,
        folders=("UCF101DVS", "UCF101DVS/UCF101DVS", "DVS/UCF101DVS/UCF101DVS", "."), split_folders=("train", "val"),
        endings=(".mat",), smallest=1024,
    )
)  # fmt: skip
register_dataset(
    EventSet(
        name="HMDBDVS", num_classes=51, size=(180, 240), classes=HMDB51, samples=(6765, 0),
        tree="HMDBDVS/<brush_hair..wave>/*.mat", note="stratified by `--split-seed`",
        source=_ARCHIVES, citation=_CITATION,
        folders=("HMDBDVS", "HMDBDVS/HMDBDVS", "DVS/HMDBDVS/HMDBDVS", "."), splits=("stratified", "random", "text"),
        endings=(".mat",), smallest=1024,
    )
)  # fmt: skip
