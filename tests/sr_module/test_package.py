import subprocess
import sys


def test_the_package_needs_nothing_of_what_only_runs_need():
    heavy = [
        "pytorch_lightning",
        "mlflow",
        "ray",
        "webdataset",
        "pycocotools",
        "spandrel",
        "matplotlib",
    ]
    code = (
        "import sys\n"
        "import sr_module, sr_module.losses, sr_module.metrics, sr_module.degrade\n"
        f"print(*[name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
