"""stackmend: declarative pyinfra operations that bring an AI stack to health and keep it there.

Each noun is a room with the same doors: ``spec`` (what is desired), ``state`` (what is there),
``facts`` (probe text to state), ``plan`` (the decision, pure), ``commands`` (action to command),
and the operations themselves in the package's ``__init__``.
"""

from pathlib import Path

__all__ = ["get_deploy_directory"]


def get_deploy_directory() -> Path:
    """The directory of ``site.py``, ``bootstrap.py`` and the reference stack, to give to pyinfra.

    In the installed package where it came as a wheel, else in the checkout.

    **Example:**

    .. code:: sh

        deploys=$(python -c 'import stackmend; print(stackmend.get_deploy_directory())')
        pyinfra inventory.py "$deploys/site.py"
    """
    here = Path(__file__).resolve().parent
    installed = here / "deploy"
    return installed if installed.is_dir() else here.parents[1] / "deploy"
