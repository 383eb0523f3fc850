//! Many transfers on a runtime with hardly a thread for what blocks: none of them may need one to give one back.

use futures_util::future::join_all;
use futures_util::stream;
use imgsrv_core::Engine;
use imgsrv_core::model::{Digest, NewUpload, PartNumber, UploadState};
use imgsrv_core::opendal::{Operator, services::Fs};
use imgsrv_core::{BoxError, PartClaim, testing};

const TRANSFERS: usize = 600;
const THREADS: usize = 8;

#[test]
fn all_of_them_finish() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(THREADS).build();
    runtime.expect("a runtime").block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Operator::new(Fs::default().root(folder.path().to_str().expect("UTF-8"))).expect("a store");
        let database = testing::sqlite_in_memory().await.expect("a database");
        let engine = Engine::builder(database, store).build().await.expect("an engine");
        for upload in join_all((0..TRANSFERS).map(|n| transfer(&engine, n))).await {
            assert_eq!(upload.expect("an upload"), UploadState::Ready);
        }
    });
}

async fn transfer(engine: &Engine, n: usize) -> Result<UploadState, BoxError> {
    let bytes = vec![u8::try_from(n % 256)?; 150_000 + n];
    let new = NewUpload {
        expected_digest: Digest::of(&bytes),
        expected_size: bytes.len() as u64,
        media_type_hint: None,
        filename_hint: None,
    };
    let upload = engine.begin_upload(new).await?;
    let body = stream::iter(bytes.chunks(100_000).map(|chunk| Ok(chunk.to_vec().into())).collect::<Vec<_>>());
    let part = engine.put_part(upload.id, PartNumber::try_from(1)?, PartClaim::default(), body).await?;
    let listed = imgsrv_core::model::PartRef { number: part.number, etag: part.etag.to_string(), size: part.size };
    Ok(engine.complete_upload(upload.id, vec![listed]).await?.state)
}
