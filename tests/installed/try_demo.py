"""Whether the demo's training has found the nuclei: ``make test-demo``."""

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    metrics = json.loads(Path(sys.argv[1]).read_text())
    print(metrics)
    if not metrics["segm/AP50"] >= 0.85:
        sys.exit(f"the demo: expected segm/AP50 >= 0.85, got {metrics['segm/AP50']}")
