"""One token in a layer: it meets the experts that are in memory while the others are read, and then those."""

from __future__ import annotations

from contextlib import suppress

from qcli.streaming.cache import Stock
from qcli.streaming.layer import Layer
from qcli.streaming.prefetch import Lookahead
from quant.plan import Ids


class TokenTurns:
    """What happens before experts that are there, and before those that were not."""

    def __init__(self, stock: Stock, lookahead: Lookahead) -> None:
        self._stock, self._lookahead = stock, lookahead

    def before(self, held: Layer, chosen: Ids, here: Ids, late: Ids) -> None:
        """Send for what is missing, and list the places in `chosen`, see ExpertProvider."""
        traffic, experts = self._stock.traffic, chosen.tolist()
        held.slots.choose(chosen)
        self._lookahead.begin(held.name)
        traffic.bytes_read -= held.give_up(self._stock.reader, experts)
        found = [held.is_here(expert) for expert in experts]
        for expert, is_here in zip(experts, found, strict=True):
            if not is_here:
                self._send_for(held, expert, experts)
        _list(here, [place for place, is_here in enumerate(found) if is_here])
        _list(late, [place for place, is_here in enumerate(found) if not is_here])
        traffic.hits += sum(found)
        traffic.misses += len(found) - sum(found)

    def after(self, held: Layer, chosen: Ids, late: Ids) -> None:
        """Wait for what is late; before that, there is time to guess."""
        if late[0]:
            self._look_ahead(held, len(chosen))
        with self._stock.traffic.waiting():
            for place in late[1 : 1 + late[0]].tolist():
                held.settle(int(chosen[place]))
        self._lookahead.end(held.name)

    def _send_for(self, held: Layer, expert: int, keep: list[int]) -> None:
        """Have an expert read into a slot, urgently; none of `keep` loses its own."""
        reader, traffic = self._stock.reader, self._stock.traffic
        if ticket := held.arriving(expert):
            reader.hurry(ticket)
            return
        while not held.is_here(expert):
            try:
                traffic.bytes_read += held.fetch(reader, expert, keep).n_bytes
                return
            except LookupError:  # all others are still being filled, maybe with this one
                with traffic.waiting():
                    held.settle_one()

    def _look_ahead(self, held: Layer, count: int) -> None:
        """While this layer's experts are read: send for those that the next one is likely to ask for."""
        following = self._stock.following(held) if self._lookahead.on else None
        if following is None:
            return
        guessed = self._lookahead.guess(held.name, following.name, count)
        for expert in guessed:
            if not following.is_here(expert) and not following.arriving(expert):
                with suppress(LookupError):
                    self._stock.traffic.bytes_read += following.guess(self._stock.reader, expert, guessed).n_bytes


def _list(places: Ids, found: list[int]) -> None:
    places[0] = len(found)
    places[1 : 1 + len(found)] = found
