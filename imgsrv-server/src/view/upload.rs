use imgsrv_core::model::{self, Digest, Etag, FileName, MediaType, PartRef, UploadId, UploadState};
use poem_openapi::Object;

use crate::number::{Number, Size};
use crate::optional::Optional;
use crate::problem::Problem;
use crate::said::Said;
use crate::text::{Id, Plain, Text, Timestamp};

/// What a client promises when it begins an upload.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
pub(crate) struct BeginUpload {
    /// The SHA-256 of all bytes.
    expected_digest: Text<Digest>,
    /// How many bytes.
    expected_size_bytes: Size,
    /// The media type of the blob, if this upload makes it.
    media_type_hint: Optional<Text<MediaType>>,
    /// What the file is called at the client.
    filename_hint: Optional<Text<FileName>>,
}

impl From<BeginUpload> for model::NewUpload {
    fn from(begin: BeginUpload) -> Self {
        Self {
            expected_digest: begin.expected_digest.0,
            expected_size: begin.expected_size_bytes.0,
            media_type_hint: begin.media_type_hint.0.map(|hint| hint.0),
            filename_hint: begin.filename_hint.0.map(|hint| hint.0),
        }
    }
}

/// A session that delivers one blob.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Upload {
    /// Its id, which is also the right to read it.
    id: Id<UploadId>,
    /// The SHA-256 of all bytes.
    expected_digest: Text<Digest>,
    /// How many bytes.
    expected_size_bytes: Size,
    /// Where it stands.
    state: Text<UploadState>,
    /// When an idle session is given up.
    expires_at: Timestamp,
    /// The media type of the blob, if this upload makes it.
    media_type_hint: Option<Text<MediaType>>,
    /// What the file is called at the client.
    filename_hint: Option<Text<FileName>>,
    /// When it was begun.
    created_at: Timestamp,
    /// Bytes in the parts that count now.
    received_bytes: Size,
    /// Why it failed.
    failure_reason: Option<String>,
}

impl From<model::Upload> for Upload {
    fn from(upload: model::Upload) -> Self {
        Self {
            id: Id(upload.id),
            expected_digest: Text(upload.expected_digest),
            expected_size_bytes: Size(upload.expected_size),
            state: Text(upload.state),
            expires_at: upload.expires_at.into(),
            media_type_hint: upload.media_type_hint.map(Text),
            filename_hint: upload.filename_hint.map(Text),
            created_at: upload.created_at.into(),
            received_bytes: Size(upload.received),
            failure_reason: upload.failure_reason,
        }
    }
}

list!(
    /// Upload sessions, or a page of them.
    Uploads { uploads: Upload }
);

/// A part that is stored.
#[derive(Debug, Object)]
pub(crate) struct StoredPart {
    /// The session that it belongs to.
    upload_id: Id<UploadId>,
    /// Its number.
    part_number: Number,
    /// Names its bytes.
    etag: Text<Etag>,
    /// How many bytes.
    size_bytes: Size,
}

impl StoredPart {
    pub(crate) fn of(upload: UploadId, part: model::Part) -> Self {
        Self {
            upload_id: Id(upload),
            part_number: Number(part.number),
            etag: Text(part.etag),
            size_bytes: Size(part.size),
        }
    }
}

/// A part of the list that a client resumes from.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Part {
    /// Its number.
    number: Number,
    /// Names its bytes.
    etag: Text<Etag>,
    /// How many bytes.
    size_bytes: Size,
    /// The SHA-256 of its bytes, where it is known.
    sha256: Option<Text<Digest>>,
}

/// The parts that count now.
#[derive(Debug, Object)]
pub(crate) struct Parts {
    parts: Vec<Part>,
    /// Bytes in all of them.
    received_bytes: Size,
}

impl From<Vec<model::Part>> for Parts {
    fn from(parts: Vec<model::Part>) -> Self {
        Self {
            received_bytes: Size(parts.iter().map(|part| part.size).sum()),
            parts: parts
                .into_iter()
                .map(|part| Part {
                    number: Number(part.number),
                    etag: Text(part.etag),
                    size_bytes: Size(part.size),
                    sha256: part.sha256.map(Text),
                })
                .collect(),
        }
    }
}

/// The parts that make the blob, in any order.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
pub(crate) struct CompleteUpload {
    parts: Vec<ListedPart>,
}

impl CompleteUpload {
    /// # Errors
    /// 400 for a part that cannot be.
    pub(crate) fn list(self) -> Result<Vec<PartRef>, Problem> {
        let listed = |part: ListedPart| {
            Ok(PartRef {
                number: part.number.keep("number")?.0,
                etag: part.etag.keep("etag")?.0,
                size: part.size_bytes.keep("size_bytes")?.0,
            })
        };
        self.parts.into_iter().map(listed).collect()
    }
}

/// A part as its answer described it.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
pub(crate) struct ListedPart {
    /// Its number.
    number: Said<Number>,
    /// The etag that the answer to the part gave.
    etag: Said<Plain>,
    /// How many bytes.
    size_bytes: Said<Size>,
}
