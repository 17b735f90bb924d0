"""Every store keeps the promises of the port: a folder, rclone and ministack."""

from __future__ import annotations

from tests.contract.objects.store_races import RaceSuite
from tests.contract.objects.store_suite import ListSuite, OtherSuite, PutSuite, ReadSuite, UploadSuite


class TestPut(PutSuite):
    """store_suite.py"""


class TestUpload(UploadSuite):
    """store_suite.py"""


class TestRead(ReadSuite):
    """store_suite.py"""


class TestList(ListSuite):
    """store_suite.py"""


class TestOther(OtherSuite):
    """store_suite.py"""


class TestRaces(RaceSuite):
    """store_races.py"""
