"""What the tests of training share."""

from tests.support.reading import read_once as read_once
