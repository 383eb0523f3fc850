//! An upload in as many parts as there may be. To send them would take more disk than most machines have to spare, and
//! only the first has to be sent: a part that was received is a row, and completing reads no bytes.

use std::io;
use std::path::Path;
use std::time::Duration;

use imgsrv_core::model::HashChain;
use sea_orm::{ConnectionTrait, Database, DbErr};
use serde_json::json;

use crate::api::Api;
use crate::scenario::{MIB, Noise};

const PARTS: usize = 10_000;

/// The least that a part may have which is not the last: bytes.
const PART: u64 = 5 * MIB;

/// How many rows go with one statement.
const ROWS: usize = 500;

/// From complete to ready, of a server that keeps what it has in a folder.
pub(super) fn complete(api: &mut Api, data: &Path, noise: &Noise) -> io::Result<Duration> {
    let mut first = HashChain::default();
    noise.body(PART).pieces(|bytes| {
        first.update(bytes);
        Ok(())
    })?;
    let first = first.save();
    let whole = HashChain::load(&behind(&first, PARTS)).ok_or_else(|| io::Error::other("the layout has changed"))?;
    let session = api.begin(whole.digest().as_ref(), whole.offset())?;
    let part = api.put_part(&session, 1, &noise.body(PART))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(receive_the_rest(data, &first)).map_err(io::Error::other)?;
    let parts: Vec<_> = (1..=PARTS)
        .map(|number| json!({"part_number": number, "etag": part["etag"], "size_bytes": part["size_bytes"]}))
        .collect();
    api.complete(&session, &parts)
}

/// What is saved of the hash behind so many parts: as behind the first, but for what counts bytes and blocks of 64. Of
/// which bytes it is the hash matters to nobody here.
fn behind(first: &[u8], parts: usize) -> Vec<u8> {
    let offset = parts as u64 * PART;
    let mut saved = first.to_vec();
    saved[2..10].copy_from_slice(&offset.to_be_bytes());
    saved[42..50].copy_from_slice(&(offset / 64).to_le_bytes());
    saved
}

/// The rows of all parts behind the first, of the one upload that is open.
async fn receive_the_rest(data: &Path, first: &[u8]) -> Result<(), DbErr> {
    let database = Database::connect(format!("sqlite://{}", data.join("imgsrv.db").display())).await?;
    let numbers: Vec<usize> = (2..=PARTS).collect();
    for some in numbers.chunks(ROWS) {
        let rows = some.iter().map(|number| format!("({number}, x'{}')", hex::encode(behind(first, *number))));
        let rows = rows.collect::<Vec<_>>().join(", ");
        let from = format!("from open join (select column1 as n, column2 as chain from (values {rows})) as part");
        let open = "with open as (select p.* from parts p join uploads u on u.id = p.upload_id \
                    where u.state = 'uploading' and p.number = 1)";
        let key = "replace(open.key, '.00001.1', printf('.%05d.%d', n, n))";
        let statements = [
            format!(
                "{open} insert into part_attempts (key, upload_id, number, attempt, state, checksums, created_at) \
                 select {key}, a.upload_id, n, n, 'stored', a.checksums, a.created_at {from} \
                 join part_attempts a on a.key = open.key"
            ),
            format!(
                "{open} insert into parts (upload_id, number, attempt, key, size, etag, chain, chain_after, stored_at) \
                 select upload_id, n, n, {key}, size, etag, part.chain, n - 1, stored_at {from}"
            ),
        ];
        for statement in statements {
            database.execute_unprepared(&statement).await?;
        }
    }
    let received = "update uploads set received = expected_size where state = 'uploading'";
    database.execute_unprepared(received).await?;
    database.close().await
}
