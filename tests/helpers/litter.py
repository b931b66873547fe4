"""What synchronisers, file managers and notebooks leave in folders."""

from __future__ import annotations

import shutil
from pathlib import Path

FOLDERS = ("@eaDir", ".stfolder", ".stversions", ".ipynb_checkpoints", ".Trash-1000", "#recycle", "__MACOSX")
FILES = (".DS_Store", "._record.json", "Thumbs.db", "desktop.ini")
CONFLICTS = (
    "{stem} (conflicted copy 2026-11-26 135000){suffix}",  # Nextcloud
    "{stem} (Anna's conflicted copy 2026-11-26){suffix}",  # Dropbox
    "{stem}.sync-conflict-20261126-135000-ABCDEFG{suffix}",  # Syncthing
    "._{stem}{suffix}",  # macOS on other disks
)


def leave_litter(root: Path) -> list[str]:
    """Leave litter in a folder and in all folders below it, with a conflict copy of every file and folder.

    Returns:
        The paths that were made, relative to the folder.
    """
    before = {root, *root.rglob("*")}
    for place in sorted(path for path in before if path.is_dir()):
        for name in FOLDERS:
            (place / name).mkdir()
            # a real record in a folder that is no run, and a link that leads out
            (place / name / "record.json").write_text("{}")
            (place / name / "elsewhere").symlink_to("/")
        for name in FILES:
            (place / name).write_text("litter")
    for path in sorted(before - {root}):
        for pattern in CONFLICTS:
            copy = path.with_name(pattern.format(stem=path.stem, suffix=path.suffix))
            if copy.exists():
                continue
            if path.is_dir():
                shutil.copytree(path, copy, symlinks=True)
            else:
                shutil.copyfile(path, copy)
    return sorted(str(path.relative_to(root)) for path in {root, *root.rglob("*")} - before)
