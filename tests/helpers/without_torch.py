"""An interpreter in which PyTorch cannot be found, whether it is installed or not."""

HIDE = """
import sys
class Hidden:
    def find_spec(name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden)
"""
