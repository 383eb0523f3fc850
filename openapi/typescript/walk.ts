// The whole tutorial with the generated types: from the bootstrap token to the downloaded bytes.
//
// Needs IMGSRV and BOOTSTRAP_TOKEN of a fresh server, and leaves disk.qcow2 in the current folder.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { openAsBlob } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./imgsrv.d.ts";

type Problem = components["schemas"]["Problem"];

const PART = 8 << 20;
const connect = (token?: string) =>
  createClient<paths>({
    baseUrl: process.env.IMGSRV,
    headers: token ? { Authorization: `Bearer ${token}` } : {},
  });

/** What was asked for; what was refused ends the walk. */
function good<T>(answer: { data?: T; error?: Problem }): T {
  assert.equal(answer.error, undefined);
  return answer.data as T;
}

const digest = (bytes: Uint8Array) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

/** Sends a file in parts, the last one first, each read as it is sent. */
async function upload(writer: ReturnType<typeof connect>, path: string) {
  const bytes = await readFile(path);
  const begin = { expected_digest: digest(bytes), expected_size_bytes: bytes.length };
  const { id } = good(await writer.POST("/v1/uploads", { body: begin }));
  const session = { path: { upload_id: id } };
  const file = await openAsBlob(path);
  const parts = [];
  for (let number = Math.ceil(file.size / PART); number > 0; number--) {
    const part = good(
      await writer.PUT("/v1/uploads/{upload_id}/parts/{number}", {
        params: { path: { upload_id: id, number } },
        headers: { "Content-Type": "application/octet-stream" },
        // The types say text where the specification says bytes.
        body: file.slice((number - 1) * PART, number * PART) as unknown as string,
        bodySerializer: (body) => body,
      }),
    );
    parts.push({ number: part.part_number, etag: part.etag, size_bytes: part.size_bytes });
  }
  let now = good(await writer.POST("/v1/uploads/{upload_id}/complete", { params: session, body: { parts } }));
  while (now.state !== "ready") {
    assert.notEqual(now.state, "failed", now.failure_reason);
    await sleep(100);
    now = good(await writer.GET("/v1/uploads/{upload_id}", { params: session }));
  }
}

const manager = connect(process.env.BOOTSTRAP_TOKEN);
const principal = good(
  await manager.POST("/v1/auth/principals", { body: { kind: "service", display_name: "image builder" } }),
).id;
good(
  await manager.PUT("/v1/auth/principals/{principal}/roles/{role}", {
    params: { path: { principal, role: "content-writer" } },
  }),
);
const token = good(
  await manager.POST("/v1/auth/principals/{principal}/api-tokens", {
    params: { path: { principal } },
    body: { expires_at: new Date(Date.now() + 86_400_000).toISOString() },
  }),
).plaintext;

const writer = connect(token);
const [disk, log] = [randomBytes(20 << 20), Buffer.from("built\n")];
await writeFile("disk.qcow2", disk);
await writeFile("build.log", log);
await upload(writer, "disk.qcow2");
await upload(writer, "build.log");

const [image, version] = ["demo", "1.0"];
good(await writer.POST("/v1/images", { body: { name: image, display_name: "Demo" } }));
good(await writer.POST("/v1/images/{image}/versions", { params: { path: { image } }, body: { version } }));
const artifact = good(
  await writer.POST("/v1/images/{image}/versions/{version}/artifacts", {
    params: { path: { image, version } },
    body: {
      operating_system: "linux",
      architecture: "amd64",
      format: "qcow2",
      primary_blob_digest: digest(disk),
      primary_blob_size_bytes: disk.length,
      primary_media_type: "application/x-qemu-disk",
    },
  }),
);
good(
  await writer.POST("/v1/images/{image}/versions/{version}/artifacts/{artifact_id}/attachments", {
    params: { path: { image, version, artifact_id: artifact.id } },
    body: { name: "build.log", media_type: "text/plain", blob_digest: digest(log), blob_size_bytes: log.length },
  }),
);

let job = good(
  await writer.POST("/v1/images/{image}/versions/{version}/publish", { params: { path: { image, version } } }),
);
while (job.state !== "succeeded") {
  assert.notEqual(job.state, "failed", job.failure_message);
  await sleep(100);
  job = good(await writer.GET("/v1/publish-jobs/{job_id}", { params: { path: { job_id: job.id } } }));
}
good(
  await writer.PUT("/v1/images/{image}/aliases/{alias}", {
    params: { path: { image, alias: "latest" } },
    body: { version },
  }),
);

const anybody = connect();
const latest = good(
  await anybody.GET("/v1/images/{image}/refs/{reference}", { params: { path: { image, reference: "latest" } } }),
);
const path = { image, version: latest.version, artifact_id: artifact.id };
const download = (header: { Range?: string; "If-Range"?: string } = {}) =>
  anybody.GET("/v1/images/{image}/versions/{version}/artifacts/{artifact_id}/download", {
    params: { path, header },
    parseAs: "arrayBuffer",
  });
const whole = await download();
assert(disk.equals(new Uint8Array(good(whole))), "the bytes are the same");
const etag = whole.response.headers.get("etag") ?? "";
assert.equal(etag, `"${artifact.primary_blob_digest}"`);
const part = await download({ Range: "bytes=100-199", "If-Range": etag });
assert.equal(part.response.status, 206);
assert(disk.subarray(100, 200).equals(new Uint8Array(good(part))), "the range is that of the bytes");

const missing = await anybody.GET("/v1/images/{image}", { params: { path: { image: "nothing" } } });
assert.equal(missing.error?.type, "urn:imgsrv:problem:not-found");
const taken = await writer.POST("/v1/images", { body: { name: image } });
assert.equal(taken.error?.type, "urn:imgsrv:problem:already-exists");
