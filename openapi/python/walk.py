"""The whole tutorial with the generated client: from the bootstrap token to the downloaded bytes.

Needs IMGSRV and BOOTSTRAP_TOKEN of a fresh server, and leaves disk.qcow2 in the current folder.
"""

import hashlib
import io
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from imgsrv_client import AuthenticatedClient, Client
from imgsrv_client.api.aliases import put_alias, resolve
from imgsrv_client.api.artifacts import add_artifact, download_artifact
from imgsrv_client.api.attachments import add_attachment
from imgsrv_client.api.auth import assign_role, create_principal, issue_api_token
from imgsrv_client.api.images import create_image, get_image
from imgsrv_client.api.publishing import get_job
from imgsrv_client.api.uploads import begin_upload, complete_upload, get_upload, put_part
from imgsrv_client.api.versions import create_version, get_manifest, publish_version
from imgsrv_client.models import (
    AddArtifact,
    AddAttachment,
    BeginUpload,
    CompleteUpload,
    CreateImage,
    CreatePrincipal,
    CreateVersion,
    Format,
    IssueApiToken,
    JobState,
    ListedPart,
    PrincipalKind,
    Problem,
    PutAlias,
    RoleId,
    UploadState,
)
from imgsrv_client.types import File

PART = 8 << 20
URL = os.environ["IMGSRV"]


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def good(answer):
    """What was asked for; what was refused ends the walk."""
    assert answer is not None and not isinstance(answer, Problem), answer
    return answer


def upload(writer: AuthenticatedClient, path: Path) -> None:
    """Sends a file in parts, the last one first, each read as it is sent."""
    content = path.read_bytes()
    begin = BeginUpload(expected_digest=digest(content), expected_size_bytes=len(content))
    session = good(begin_upload.sync(client=writer, body=begin))
    parts = []
    for number in reversed(range(1, -(-len(content) // PART) + 1)):
        section = io.BytesIO(content[(number - 1) * PART : number * PART])
        part = good(put_part.sync(session.id, number, client=writer, body=File(payload=section)))
        parts.append(ListedPart(number=part.part_number, etag=part.etag, size_bytes=part.size_bytes))
    now = good(complete_upload.sync(session.id, client=writer, body=CompleteUpload(parts=parts)))
    while now.state != UploadState.READY:
        assert now.state != UploadState.FAILED, now.failure_reason
        time.sleep(0.1)
        now = good(get_upload.sync(session.id, client=writer))


manager = AuthenticatedClient(URL, token=os.environ["BOOTSTRAP_TOKEN"])
principal = CreatePrincipal(kind=PrincipalKind.SERVICE, display_name="image builder")
principal = good(create_principal.sync(client=manager, body=principal))
assert assign_role.sync_detailed(principal.id, RoleId.CONTENT_WRITER, client=manager).status_code == 204
expires = IssueApiToken(expires_at=datetime.now(UTC) + timedelta(days=1))
token = good(issue_api_token.sync(principal.id, client=manager, body=expires)).plaintext

writer = AuthenticatedClient(URL, token=token)
disk, log = Path("disk.qcow2"), Path("build.log")
disk.write_bytes(os.urandom(20 << 20))
log.write_bytes(b"built\n")
upload(writer, disk)
upload(writer, log)

good(create_image.sync(client=writer, body=CreateImage(name="demo", display_name="Demo")))
good(create_version.sync("demo", client=writer, body=CreateVersion(version="1.0")))
artifact = AddArtifact(
    operating_system="linux",
    architecture="amd64",
    format_=Format.QCOW2,
    primary_blob_digest=digest(disk.read_bytes()),
    primary_blob_size_bytes=disk.stat().st_size,
    primary_media_type="application/x-qemu-disk",
)
artifact = good(add_artifact.sync("demo", "1.0", client=writer, body=artifact))
attachment = AddAttachment(
    name="build.log",
    media_type="text/plain",
    blob_digest=digest(log.read_bytes()),
    blob_size_bytes=log.stat().st_size,
)
good(add_attachment.sync("demo", "1.0", artifact.id, client=writer, body=attachment))

job = good(publish_version.sync("demo", "1.0", client=writer))
while job.state != JobState.SUCCEEDED:
    assert job.state != JobState.FAILED, job.failure_message
    time.sleep(0.1)
    job = good(get_job.sync(job.id, client=writer))
good(put_alias.sync("demo", "latest", client=writer, body=PutAlias(version="1.0")))

anybody = Client(URL)
version = good(resolve.sync("demo", "latest", client=anybody)).version
found = good(get_manifest.sync("demo", version, client=anybody)).artifacts[0].artifact
whole = download_artifact.sync_detailed("demo", version, found.id, client=anybody)
assert whole.content == disk.read_bytes(), "the bytes are the same"
assert whole.headers["etag"] == f'"{found.primary_blob_digest}"'
part = download_artifact.sync_detailed(
    "demo", version, found.id, client=anybody, range_="bytes=100-199", if_range=whole.headers["etag"]
)
assert (part.status_code, part.content) == (206, whole.content[100:200])
same = download_artifact.sync_detailed("demo", version, found.id, client=anybody, if_none_match=whole.headers["etag"])
assert same.status_code == 304

missing = get_image.sync("nothing", client=anybody)
assert isinstance(missing, Problem) and missing.type_ == "urn:imgsrv:problem:not-found", missing
taken = create_image.sync(client=writer, body=CreateImage(name="demo"))
assert isinstance(taken, Problem) and taken.type_ == "urn:imgsrv:problem:already-exists", taken
