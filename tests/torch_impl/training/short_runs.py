"""What the tests of training share."""

from torch_impl.training.recipes.kinds import SeriesRecipe

TINY = SeriesRecipe(
    "BasicMotions", epochs=3, batch=8, layers=1, width=16, num_heads=4, feedforward=16, patch=1, warp=0.3, jitter=0.1
)


def write_set(folder, name="Own", train=None, test=None, encoding="utf-8"):
    cases = ["1,2,3:4,5,6:a", "3,2:1,0:b", "0,?,5:2,2,2:a", "9,8:7,6:b"]
    (folder / name).mkdir(exist_ok=True)
    for split, given in (("TRAIN", train), ("TEST", test)):
        lines = ["#caf\u00e9", f"@problemName {name}", "@timeStamps false", "@missing true", "@univariate false"]
        lines += [
            "@dimensions 2",
            "@equalLength false",
            "@classLabel true a b",
            "@data",
            *(cases if given is None else given),
        ]
        (folder / name / f"{name}_{split}.ts").write_text("\n".join(lines) + "\n", encoding=encoding)
    return folder
