//! The same answers from a large catalogue.

use std::io;
use std::path::Path;
use std::time::Duration;

use sea_orm::{ConnectionTrait, Database, DbErr};

use super::in_turn;
use super::table::{Goal, RATIO, Table};
use crate::latency::{Latencies, ms};
use crate::scenario::closed_loop;
use crate::server::{Deployment, Imgsrv};

const FEW: u32 = 1_000;
const MANY: u32 = 100_000;

/// How often the two catalogues take turns at an answer, and how long a turn is: how soon threads wake each other changes
/// from one second to the next.
const TURNS: u32 = 10;
const TURN: Duration = Duration::from_millis(100);

/// How often they start in a round.
const STARTS: u32 = 5;

pub(crate) fn measure(table: &mut Table, rounds: u32) -> io::Result<()> {
    let [few, many] = [FEW, MANY].map(Catalogue::of);
    let (few, many) = (few?, many?);
    let seen: [f64; 8] = in_turn(rounds, |_| {
        let catalogues = [&few, &many];
        // Each alone, and often, as one start takes twice as long as another.
        let mut starts = [Vec::new(), Vec::new()];
        for _ in 0..STARTS {
            for (catalogue, starts) in catalogues.iter().zip(&mut starts) {
                starts.push(catalogue.start()?.started_in);
            }
        }
        let [few_start, many_start] = starts.map(|starts| ms(Latencies::from(starts).median()));
        let servers = [few.start()?, many.start()?];
        let ask = |path_of: fn(&Catalogue) -> String| {
            let mut taken = [Vec::new(), Vec::new()];
            for _ in 0..TURNS {
                for ((catalogue, server), taken) in catalogues.iter().zip(&servers).zip(&mut taken) {
                    let path = path_of(catalogue);
                    taken.push(closed_loop(server.program.address, 1, TURN, |_| (path.clone(), String::new()))?);
                }
            }
            io::Result::Ok(taken.map(|taken| ms(Latencies::all(taken).median())))
        };
        let [few_manifest, many_manifest] =
            ask(|catalogue| format!("/v1/images/image/versions/v{}", catalogue.versions / 3))?;
        let [few_page, many_page] = ask(|_| "/v1/images/image/versions?limit=100".to_owned())?;
        let [few_alias, many_alias] = ask(|_| "/v1/images/image/refs/latest".to_owned())?;
        Ok([few_manifest, many_manifest, few_page, many_page, few_alias, many_alias, few_start, many_start])
    })?;
    let names = [
        "manifest among 100,000 versions, beside 1,000",
        "page of 100 among 100,000 versions, beside 1,000",
        "alias among 100,000 versions, beside 1,000",
        "start with 100,000 versions, beside 1,000",
    ];
    for (name, pair) in names.into_iter().zip(seen.chunks(2)) {
        table.add(name, pair[1] / pair[0], RATIO, Goal::AtMost(1.5));
    }
    Ok(())
}

/// A folder with one image of so many published versions.
struct Catalogue {
    folder: tempfile::TempDir,
    token: String,
    versions: u32,
}

impl Catalogue {
    fn of(versions: u32) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let imgsrv = Imgsrv::start_in(folder.path(), Deployment::Embedded)?;
        let token = imgsrv.publisher()?.token().to_owned();
        drop(imgsrv);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(fill(folder.path(), versions)).map_err(io::Error::other)?;
        let catalogue = Self { folder, token, versions };
        let imgsrv = catalogue.start()?;
        let mut api = imgsrv.api(&catalogue.token)?;
        let body = serde_json::json!({ "version": format!("v{}", versions / 2) });
        api.ask("PUT", "/v1/images/image/aliases/latest", Some(&body))?;
        drop(imgsrv);
        Ok(catalogue)
    }

    fn start(&self) -> io::Result<Imgsrv> {
        Imgsrv::start_in(self.folder.path(), Deployment::Embedded)
    }
}

/// A catalogue as so many publishes would have left it.
async fn fill(data: &Path, versions: u32) -> Result<(), DbErr> {
    let database = Database::connect(format!("sqlite://{}", data.join("imgsrv.db").display())).await?;
    let id = |kind: char| format!("unhex(printf('%s%031x', '{kind}', i))");
    // Times as the server writes them, a second apart.
    let at = "strftime('%Y-%m-%dT%H:%M:%S+00:00', 1700000000 + i, 'unixepoch')";
    let count = format!("with recursive c(i) as (select 0 union all select i + 1 from c where i < {})", versions - 1);
    let image = "unhex(printf('a%031x', 0))";
    let (version, artifact) = (id('b'), id('c'));
    let statements = [
        format!(
            "insert into images (id, name, generation, created_at, updated_at) \
             select {image}, 'image', 1, {at}, {at} from (select 0 as i)"
        ),
        "update catalog_generation set n = 1".to_owned(),
        format!(
            "insert into versions (id, image_id, version, state, published_at, created_at, updated_at) {count} \
             select {version}, {image}, 'v' || i, 'draft', null, {at}, {at} from c"
        ),
        format!(
            "insert into artifacts (id, version_id, variant, operating_system, architecture, format, blob_digest, \
             blob_size, media_type, requirements, created_at) {count} \
             select {artifact}, {version}, 'default', 'linux', 'amd64', 'qcow2', printf('sha256:%064x', i), 1000000, \
             'application/x-qemu-disk', '{{}}', {at} from c"
        ),
        "update versions set state = 'publishing'".to_owned(),
        "update versions set state = 'published', published_at = created_at".to_owned(),
    ];
    for statement in statements {
        database.execute_unprepared(&statement).await?;
    }
    database.close().await
}
