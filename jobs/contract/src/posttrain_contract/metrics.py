"""Names of figures that one program reports and another one looks for; a figure that is only shown needs no name here.

A figure travels in ``Progress``, in ``HistoryLine`` and in ``StageResult`` under the same name.
"""

from typing import Final

LOSS: Final = "loss"
"""Training loss; in a result the mean over the last steps."""
FIRST_LOSS: Final = "firstLoss"
"""Training loss of the first step."""
REWARD: Final = "reward"
"""Mean reward of the completions of a step; in a result the mean over the last steps."""
FIRST_REWARD: Final = "firstReward"
"""Mean reward of the first step."""
EXACT_MATCH: Final = "exactMatch"
"""Share of held-out tasks solved, 0 to 1; in a result after training."""
EXACT_MATCH_BEFORE: Final = "exactMatchBefore"
"""The same before the first step."""
ROWS_READ: Final = "rowsRead"
"""Rows of a source."""
ROWS_KEPT: Final = "rowsKept"
"""Rows that are left of it."""
KEPT_PERCENT: Final = "keptPercent"
"""Share of rows kept, 0 to 100."""
UPLOADED_PERCENT: Final = "uploadedPercent"
"""Share of repositories sent, 0 to 100."""
