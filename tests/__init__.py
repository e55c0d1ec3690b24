"""The tests, in folders like those of the package."""

import pytest

# The assertions of helpers show what was compared, as those of tests do.
pytest.register_assert_rewrite("tests.helpers")
