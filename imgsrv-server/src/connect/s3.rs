//! A store that speaks S3.

use std::time::Duration;

use imgsrv_core::opendal::Operator;
use opendal::layers::{RetryLayer, TimeoutLayer};
use opendal::{Buffer, ErrorKind};
use uuid::Uuid;

use super::unusable;
use crate::cli::Failure;
use crate::config::{Checksum, S3};

/// For a question that is small, and for a piece of bytes: the end of an object of gigabytes is one too.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
const BYTES_TIMEOUT: Duration = Duration::from_mins(2);

/// How often a call is repeated that failed in passing, and the pauses before it. Who asked waits two seconds in all,
/// and then learns that the store is away; jobs come back later.
const RETRIES: usize = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The store as it is to be used.
pub(super) async fn open(s3: &S3) -> Result<Operator, Failure> {
    let sends_crc32c = match s3.checksum {
        Checksum::None => false,
        Checksum::Crc32c => true,
        Checksum::Auto => takes_crc32c(s3).await?,
    };
    tracing::info!(endpoint = s3.endpoint, bucket = s3.bucket, crc32c = sends_crc32c, "the store speaks S3");
    Ok(bare(s3, sends_crc32c)?
        // The retry is outside, so that each try has its own time.
        .layer(TimeoutLayer::new().with_timeout(ANSWER_TIMEOUT).with_io_timeout(BYTES_TIMEOUT))
        .layer(
            RetryLayer::new()
                .with_max_times(RETRIES)
                .with_min_delay(FIRST_PAUSE)
                .with_max_delay(LONGEST_PAUSE)
                .with_jitter(),
        ))
}

fn bare(s3: &S3, crc32c: bool) -> Result<Operator, Failure> {
    opendal::install_default(); // the HTTP client, which only opendal's own default features would bring along
    let mut service = opendal::services::S3::default()
        .endpoint(&s3.endpoint)
        .bucket(&s3.bucket)
        .region(&s3.region)
        .access_key_id(&s3.access_key_id)
        .secret_access_key(s3.secret_access_key.reveal())
        // What is not configured here is not to be had from files or services of the machine.
        .disable_config_load()
        .disable_ec2_metadata();
    if let Some(token) = &s3.session_token {
        service = service.session_token(token.reveal());
    }
    if !s3.path_style {
        service = service.enable_virtual_host_style();
    }
    if crc32c {
        service = service.checksum_algorithm("crc32c");
    }
    Operator::new(service).map_err(|err| unusable(&s3.endpoint, err))
}

/// Whether the store takes a CRC32C with an object, and with the parts of one. A store that does not answer is asked
/// again when the engine checks it; here it only cannot be said to take one.
async fn takes_crc32c(s3: &S3) -> Result<bool, Failure> {
    #[expect(clippy::disallowed_methods, reason = "there is no engine yet whose clock could make it")]
    let key = format!("probe/{}", Uuid::now_v7());
    let operator =
        bare(s3, true)?.layer(TimeoutLayer::new().with_timeout(ANSWER_TIMEOUT).with_io_timeout(ANSWER_TIMEOUT));
    let taken = write_in_parts(&operator, &key).await;
    // Whatever came of it; the daily listing deletes what is left.
    if let Err(err) = operator.delete(&key).await {
        tracing::debug!(error = %err, key, "a probe is left behind");
    }
    match taken {
        Ok(size) => Ok(size == PROBE.iter().sum::<usize>() as u64),
        Err(err) => {
            tracing::debug!(error = %err, "no CRC32C");
            Ok(false)
        }
    }
}

/// The sizes of two parts: the least that S3 takes, and a last one, which may be smaller.
const PROBE: [usize; 2] = [5 << 20, 1];

async fn write_in_parts(operator: &Operator, key: &str) -> opendal::Result<u64> {
    let mut writer = operator.writer(key).await?;
    for size in PROBE {
        writer.write(Buffer::from(vec![0; size])).await?;
    }
    if let Err(err) = writer.close().await {
        writer.abort().await.or_else(|err| if err.kind() == ErrorKind::Unsupported { Ok(()) } else { Err(err) })?;
        return Err(err);
    }
    Ok(operator.stat(key).await?.content_length())
}
