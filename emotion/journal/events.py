"""What has changed, for pages that are open."""

import threading
from collections import deque
from typing import Any

from emotion.journal.schema import Entry

MAX_WAITING = 1000  # events of a page that does not read; older ones are dropped

Event = dict[str, Any]


class Subscription:
    """The events since it was made."""

    def __init__(self, events: "Events") -> None:
        self._events = events
        self._waiting: deque[Event] = deque(maxlen=MAX_WAITING)

    def drain(self) -> list[Event]:
        """Return the events since the last call, without waiting."""
        found = []
        while self._waiting:
            found.append(self._waiting.popleft())
        return found

    def put(self, event: Event) -> None:
        """Add an event."""
        self._waiting.append(event)

    def close(self) -> None:
        """End the subscription."""
        self._events.remove(self)


class Events:
    """Sends each event to all subscriptions; safe between threads."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._lock = threading.Lock()

    def subscribe(self) -> Subscription:
        """Return a new subscription."""
        subscription = Subscription(self)
        with self._lock:
            self._subscriptions.add(subscription)
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """End a subscription."""
        with self._lock:
            self._subscriptions.discard(subscription)

    def send(self, kind: str, **values: Any) -> None:
        """Send an event."""
        with self._lock:
            for subscription in self._subscriptions:
                subscription.put({"kind": kind, **values})

    def entry_changed(self, entry: Entry) -> None:
        """Send that an entry has changed."""
        self.send("entry", id=entry.id, person_id=entry.person_id, state=entry.state)
