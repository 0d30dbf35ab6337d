"""A network as a service: a photograph goes in, a map comes out. Nothing of PyTorch is needed.

u2learn export drive-small model.onnx
MODEL=model.onnx uvicorn app:app
curl --data-binary @eye.jpg http://127.0.0.1:8000/map --output map.png
"""

import asyncio
import os
from io import BytesIO

import numpy as np
import onnxruntime
from fastapi import FastAPI, HTTPException, Request, Response
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_BYTES, MAX_PIXELS = 10_000_000, 12_000_000  # of an upload, and of the photograph in it
MAX_WAITING, MAX_SECONDS = 64, 20.0  # requests at a time; to upload one, and to wait for its turn
FORMATS = ("JPEG", "PNG", "WEBP")
Image.MAX_IMAGE_PIXELS = None  # the limit above is asked for instead

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = os.cpu_count() or 1
model = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
app, turn, waiting = FastAPI(), asyncio.Semaphore(1), 0


@app.post("/map")
async def make_map(request: Request) -> Response:
    global waiting
    if waiting >= MAX_WAITING:
        raise HTTPException(503, "Too many photographs are waiting; try again soon.")
    waiting += 1
    try:
        data = await asyncio.wait_for(upload(request), MAX_SECONDS)
        await asyncio.wait_for(turn.acquire(), MAX_SECONDS)
        try:  # one at a time: it uses all cores, and the memory stays that of one photograph
            png = await asyncio.to_thread(map_of, data)
        finally:
            turn.release()
    except asyncio.TimeoutError:
        raise HTTPException(503, f"Not done within {MAX_SECONDS:.0f} s; try again later.") from None
    finally:
        waiting -= 1
    return Response(png, media_type="image/png")


async def upload(request: Request) -> bytes:
    """The bytes of a request; it is left as soon as there are too many."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MAX_BYTES:
            raise HTTPException(413, f"A photograph may have {MAX_BYTES:,} bytes.")
    return bytes(data)


def map_of(data: bytes) -> bytes:
    """The map of a photograph in the bytes of its file, as a PNG of the same size."""
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:  # told by its head, before it is decoded
                raise HTTPException(413, f"A photograph may have {MAX_PIXELS:,} pixels.")
            rgb = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))  # (H, W, 3)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise HTTPException(415, f"This is no photograph of {', '.join(FORMATS)}.") from error
    found = model.run(None, {"photograph": rgb.transpose(2, 0, 1)[None]})[0]
    sure = found[0, -1] if found.ndim == 4 else found[0]  # (H, W): of the last class, or the saliency map
    png = BytesIO()
    Image.fromarray((255 * sure).round().astype(np.uint8)).save(png, "PNG")
    return png.getvalue()
