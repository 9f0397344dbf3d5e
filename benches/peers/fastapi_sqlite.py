"""Takes Meta's lead webhooks into SQLite: what one writes by hand.

The guarantees are leadloop's: the signature is checked before anything is read, a lead id is stored
once, and the answer is sent when the transaction is flushed to the disk.
"""

import hashlib
import hmac
import json
import os
import sqlite3

from fastapi import FastAPI, Request, Response

SECRET = os.environ["APP_SECRET"].encode()

database = sqlite3.connect(os.environ["DATABASE"], isolation_level=None, check_same_thread=False)
database.execute("PRAGMA journal_mode = WAL")
database.execute("PRAGMA synchronous = FULL")
database.execute(
    "CREATE TABLE leads (lead_id INTEGER PRIMARY KEY, page_id INTEGER, created_time INTEGER,"
    " body TEXT)"
)
database.execute(
    "CREATE TABLE outbox (id INTEGER PRIMARY KEY, lead_id INTEGER, event_time INTEGER)"
)

app = FastAPI(openapi_url=None)


@app.post("/webhooks/meta")
async def deliver(request: Request) -> Response:
    body = await request.body()
    expected = "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(request.headers.get("x-hub-signature-256", ""), expected):
        return Response(status_code=401)
    leads = [
        change["value"]
        for entry in json.loads(body)["entry"]
        for change in entry["changes"]
        if change["field"] == "leadgen"
    ]
    # One connection and no `await` in between: nobody else is in this transaction.
    database.execute("BEGIN IMMEDIATE")
    try:
        for lead in leads:
            stored = database.execute(
                "INSERT INTO leads VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (
                    int(lead["leadgen_id"]),
                    int(lead["page_id"]),
                    int(lead["created_time"]),
                    json.dumps(lead),
                ),
            )
            if stored.rowcount:
                database.execute(
                    "INSERT INTO outbox (lead_id, event_time) VALUES (?, ?)",
                    (int(lead["leadgen_id"]), int(lead["created_time"]) + 1),
                )
        database.execute("COMMIT")
    except sqlite3.Error:
        database.execute("ROLLBACK")
        return Response(status_code=503)
    return Response(status_code=200)
