"""The clock of a stream → the time that each picture is on screen. Pure.

In: what pictures carry as their time, in order. Out: seconds after the first, strictly increasing. A jump
of the clock is no time on screen: the picture after it follows one step after the one before.

What counts as a jump:
- A step back by more than BACK_S, in any container: the clock ran backwards, wrapped or was set anew.
  Smaller ones are disorder: that picture alone follows by one step of the usual rate.
- A step forward of more than GAP_S and more than GAP_STEPS usual steps, in a container whose clock may be
  discontinuous (AVFMT_TS_DISCONT of FFmpeg: MPEG transport and program streams, chained Ogg). Nobody writes a
  held picture there as a gap: MPEG wants a time every 0.7 s (ISO 13818-1, 2.7.5).
- A step forward of more than HOLD_S, also of more than GAP_STEPS usual steps, in all others: in MP4, Matroska
  and their like a gap is a picture that is held (a slide, a screen that rests), up to an hour.
"""

from dataclasses import dataclass

BACK_S = 0.5  # reordering and times in whole milliseconds are off by less
GAP_S, HOLD_S = 2.0, 3600.0
GAP_STEPS = 10


@dataclass(slots=True, kw_only=True)
class Clock:
    """Reads one stream. `step_s`: of the usual rate."""

    step_s: float
    may_jump: bool  # the container's clock may be discontinuous
    jumps: int = 0  # so far
    _offset_s: float = 0.0  # of the stream's clock at our 0
    _own_s: float | None = None  # what the last picture that carried a time carried
    _untimed: int = 0  # pictures since then
    _time_s: float | None = None  # when the picture before is on screen
    _usual_s: float = 0.0  # the step before, by the stream's own clock

    def time_s(self, own_s: float | None) -> float:
        """When the next picture is on screen; `own_s` is what it carries."""
        if self._time_s is None:
            self._offset_s = own_s or 0.0
            self._own_s, self._time_s = own_s, 0.0
            return 0.0
        follows_s = self._time_s + self.step_s
        if own_s is None:
            self._time_s = follows_s
            self._untimed += 1
            return follows_s
        if self._own_s is not None:
            gap_s = own_s - self._own_s
            if self._jumps(gap_s):
                follows_s = self._time_s + (self._usual_s or self.step_s)
                self.jumps += 1
                self._offset_s = own_s - follows_s
            elif gap_s > 0 and not self._untimed:
                self._usual_s = gap_s
        self._untimed = 0
        self._own_s = own_s
        time_s = own_s - self._offset_s
        self._time_s = time_s if time_s > self._time_s else follows_s
        return self._time_s

    def _jumps(self, gap_s: float) -> bool:
        longest_s = max(GAP_S if self.may_jump else HOLD_S, GAP_STEPS * max(self.step_s, self._usual_s))
        return gap_s < -BACK_S or gap_s - self._untimed * self.step_s > longest_s
