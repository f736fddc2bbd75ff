import pytest

from pipeline.resume import fit_or_stop


class Stopped:
    """A trainer whose training ends by an exception."""

    received_sigterm = False

    def __init__(self, *, by_keyboard: bool) -> None:
        self.by_keyboard = by_keyboard

    def fit(self, *_: object, **__: object) -> None:
        if not self.by_keyboard:
            raise SystemExit(0)
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1)  # noqa: B904 (as Lightning does)


def test_a_sweeps_wish_to_stop_a_trial_is_passed_on():
    with pytest.raises(SystemExit):
        fit_or_stop(Stopped(by_keyboard=False), None, None, checkpoint=None)


def test_the_keyboard_stays_the_keyboard():
    with pytest.raises(KeyboardInterrupt):
        fit_or_stop(Stopped(by_keyboard=True), None, None, checkpoint=None)
