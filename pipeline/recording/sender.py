"""The thread that passes a run's journal on, so that the run itself never waits for the store."""

import logging
import threading
import time

from pipeline.addresses import public_uri
from pipeline.recording.delivery import Delivery
from pipeline.recording.journal import Journal
from pipeline.recording.store import AwayError, RefusedError
from pipeline.recording.system import Gauges

logger = logging.getLogger(__name__)

LINGER_S = 1.0
"""Between two sendings: fewer and larger ones cost the training less."""
PAUSE_S = 30.0
"""Longest pause between two tries of a store that does not answer."""
PATIENCE_S = 30.0
"""How long the end of a run waits for a store that does not answer."""
HEAD_START_S = 10.0
"""Of work that does not wait for its run in the store: MLflow takes seconds to be imported, and to
make a new store, which the first step needs not."""


class Sender:
    """Passes a journal on in the background until it is told to stop.

    Args:
        journal: of the run.
        uri: of its store, with credentials.
        head_start_s: until it begins, unless something is waited for.

    Attributes:
        refused: what the store has said, if it would not make a run that had its head start.
    """

    refused: RefusedError | None = None

    def __init__(self, journal: Journal, uri: str, *, head_start_s: float = 0.0) -> None:
        self.journal = journal
        self.delivery = Delivery(journal, uri)
        self._changed = threading.Condition()
        self._hurried = self._stopped = False
        self._pause = 0.0
        self._away_since: float | None = None
        self._told = False
        self._head_start_s = head_start_s
        # Not a part of the run's life: a store that hangs must not hold the process.
        self._thread = threading.Thread(target=self._work, daemon=True, name="srdet-record")
        self._thread.start()

    def drain(self, patience_s: float = PATIENCE_S) -> bool:
        """Waits until the store has everything; False where it did not answer for so long."""
        began = time.monotonic()
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            while self.journal.waiting and self._thread.is_alive():
                self._changed.wait(0.2)
                away = self._away_since
                if away is not None and time.monotonic() - max(began, away) > patience_s:
                    break
            self._hurried = False
        return not self.journal.waiting

    def until_made(self) -> None:
        """Waits until the store has made the run, unless it does not answer."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            while self._may_be_made():
                self._changed.wait(0.2)
            self._hurried = False

    def _may_be_made(self) -> bool:
        told = self.journal.waiting and not self.journal.head.run_id
        return bool(told) and self._away_since is None and self._thread.is_alive()

    def stop(self) -> None:
        """Ends the thread; one that hangs in a call is left to itself."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(5)

    def _work(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._hurried or self._stopped, self._head_start_s)
        gauges = Gauges(self.journal)
        while not self._stopped:
            gauges.read()
            try:
                sent = self.delivery.pass_on()
            except AwayError as error:
                self._note_away(error)
                sent = 0
            except RefusedError as error:  # the run itself: nothing more can be sent
                if self._head_start_s and not self.journal.head.run_id:
                    self.refused = error
                else:
                    logger.error("%s; its records stay in %s", error, self.journal.folder)
                return
            else:
                self._note_back()
            if not sent:
                self._rest()

    def _rest(self) -> None:
        with self._changed:
            self._changed.notify_all()
            if self._stopped or (self._hurried and self.journal.waiting and not self._pause):
                return
            seconds = max(LINGER_S, self._pause)
            self._changed.wait(min(seconds, 1.0) if self._hurried else seconds)

    def _note_away(self, error: AwayError) -> None:
        self._pause = min(PAUSE_S, max(1.0, 2 * self._pause))
        if self._away_since is None:
            self._away_since = time.monotonic()
        if not self._told:
            self._told = True
            logger.warning(
                "%s; the run goes on, its records wait in %s and are sent when it answers",
                error, self.journal.folder,
            )  # fmt: skip

    def _note_back(self) -> None:
        if self._told and not self.journal.waiting:
            logger.warning(
                "MLflow at %s answers again and has every record", public_uri(self.delivery.uri)
            )
            self._told = False
        self._pause, self._away_since = 0.0, None
