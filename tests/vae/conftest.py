"""Models of a few epochs have tables of 24 x 24 nodes around steep walls: `train` says so, and is right."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/vae/" in item.path.as_posix():
            item.add_marker(pytest.mark.filterwarnings("ignore:the table of the metric is off:UserWarning"))
