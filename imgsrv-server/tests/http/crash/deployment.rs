//! Where the servers that are killed keep what they have, and how it is looked at behind their backs.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use imgsrv_core::opendal::{self, Operator, services};
use imgsrv_core::sea_orm::{ConnectOptions, Database, DatabaseConnection};
use imgsrv_core::testing::{Garage, Postgres};
use tokio::task::block_in_place;

use crate::nodes::on_services;
use crate::server::{Folder, program};

/// A database and a store: those of the embedded default, or of PostgreSQL and Garage, which are not killed.
#[derive(Clone)]
pub(super) struct Deployment {
    pub(super) folder: Folder,
    services: Option<Named>,
}

/// A database and a bucket of the same name.
#[derive(Clone)]
struct Named {
    services: Arc<Services>,
    name: String,
}

struct Services {
    postgres: Postgres,
    garage: Garage,
    names: AtomicU32,
}

impl Named {
    fn new(services: Arc<Services>) -> Self {
        let name = format!("crash{}", services.names.fetch_add(1, Ordering::Relaxed));
        block_in_place(|| {
            services.postgres.create_database(&name).expect("a database");
            services.garage.create_bucket(&name).expect("a bucket");
        });
        Self { services, name }
    }
}

impl Deployment {
    pub(super) async fn embedded() -> Self {
        Self { folder: Folder::new(), services: None }
    }

    pub(super) async fn services() -> Self {
        let services = block_in_place(|| Services {
            postgres: Postgres::start().expect("PostgreSQL"),
            garage: Garage::start().expect("Garage"),
            names: 0.into(),
        });
        Self { folder: Folder::new(), services: Some(Named::new(Arc::new(services))) }
    }

    /// Another one of its kind, with nothing in it.
    pub(super) fn anew(&self) -> Self {
        let services = self.services.as_ref().map(|named| Named::new(Arc::clone(&named.services)));
        Self { folder: Folder::new(), services }
    }

    /// Another one with the same in it, where that is a matter of copying files. No server may run on it.
    pub(super) fn copy(&self) -> Option<Self> {
        if !self.is_embedded() {
            return None;
        }
        let folder = Folder::new();
        let copied = Command::new("cp").arg("-a").arg(self.folder.data()).arg(folder.path()).status();
        assert!(copied.expect("cp").success());
        Some(Self { folder, services: None })
    }

    pub(super) fn is_embedded(&self) -> bool {
        self.services.is_none()
    }

    pub(super) fn name(&self) -> &'static str {
        if self.is_embedded() { "SQLite and files" } else { "PostgreSQL and S3" }
    }

    /// The program, told where everything is.
    pub(super) fn program(&self) -> Command {
        let mut command = match &self.services {
            Some(Named { services, name }) => on_services(&services.postgres, name, &services.garage, name),
            None => Command::new(program()),
        };
        command.arg("--data-dir").arg(self.folder.data());
        command
    }

    /// The database, for whoever wants to see it for himself.
    pub(super) async fn database(&self) -> DatabaseConnection {
        let url = match &self.services {
            Some(Named { services, name }) => services.postgres.url(name),
            None => format!("sqlite://{}", self.folder.data().join("imgsrv.db").display()),
        };
        let mut options = ConnectOptions::new(url);
        options.max_connections(4).sqlx_logging(false);
        Database::connect(options).await.expect("the database")
    }

    /// The store, likewise.
    pub(super) fn store(&self) -> Operator {
        let Some(Named { services, name }) = &self.services else {
            let files = services::Fs::default().root(&self.folder.data().join("objects").display().to_string());
            return Operator::new(files).expect("the store");
        };
        opendal::install_default(); // the HTTP client, which default features would install by themselves
        let bucket = services::S3::default()
            .endpoint(&format!("http://{}", services.garage.endpoint()))
            .bucket(name)
            .region(Garage::REGION)
            .access_key_id(Garage::ACCESS_KEY_ID)
            .secret_access_key(Garage::SECRET_ACCESS_KEY)
            .disable_config_load();
        Operator::new(bucket).expect("the store")
    }

    /// How many multipart uploads were begun and neither finished nor given up. No listing shows them, no row tells of
    /// them: a store is told to forget them by itself.
    pub(super) fn unfinished_multiparts(&self) -> Option<u64> {
        let Named { services, name } = self.services.as_ref()?;
        Some(block_in_place(|| services.garage.unfinished_uploads(name)).expect("Garage"))
    }
}
