"""What the tests of methods share."""

from tests.support.reading import read_once as read_once
