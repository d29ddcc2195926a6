"""A small worker: a stage type, a plain function as its handler, and the SDK."""

import math
from datetime import timedelta
from pathlib import Path

from jobnik_sdk import Handler, HandlerStyle, JobnikClient, StageType, TaskContext, Worker
from PIL import Image
from pydantic import BaseModel

_CELL = 256
_GAP = 16
_PAPER = "#f7f5f0"


class ContactSheetTask(BaseModel):
    """Arrange all pictures of one folder in one picture."""

    thumbnails: Path
    target: Path


class ContactSheetResult(BaseModel):
    """The number of pictures on the sheet."""

    pictures: int


contact_sheets = StageType("contact-sheet", task=ContactSheetTask, result=ContactSheetResult)


def make_contact_sheet(task: ContactSheetTask, context: TaskContext) -> ContactSheetResult:
    """Arrange the thumbnails in a grid with about as many rows as columns."""
    files = sorted(task.thumbnails.glob("[!.]*"))
    columns = math.ceil(math.sqrt(len(files)))
    rows = math.ceil(len(files) / columns)
    step = _CELL + _GAP
    sheet = Image.new("RGB", (columns * step + _GAP, rows * step + _GAP), _PAPER)
    for place, file in enumerate(files):
        with Image.open(file) as thumbnail:
            x = _GAP + place % columns * step + (_CELL - thumbnail.width) // 2
            y = _GAP + place // columns * step + (_CELL - thumbnail.height) // 2
            sheet.paste(thumbnail, (x, y), thumbnail if thumbnail.has_transparency_data else None)
    sheet.save(task.target, quality=88)
    context.logger.info("contact sheet made", pictures=len(files))
    return ContactSheetResult(pictures=len(files))


def contact_sheet_worker(client: JobnikClient) -> Worker:
    """Return the worker; the caller runs it."""
    return Worker(
        client,
        [Handler(contact_sheets, make_contact_sheet, style=HandlerStyle.THREAD)],
        poll_initial_delay=timedelta(milliseconds=50),
        poll_max_delay=timedelta(milliseconds=400),
    )
