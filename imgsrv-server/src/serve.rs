//! The long-running commands: serving, and working in the background.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use imgsrv_core::Engine;
use imgsrv_server::{Readiness, Tls, TlsError, auth};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cli::{Failure, print_token};
use crate::config::{Config, Listen};
use crate::connect::{self, Schema};

/// Serves HTTP, and works in the background unless told not to, until the process is told to stop.
pub(crate) async fn serve(config: &Config) -> Result<(), Failure> {
    let tls = tls(config).await?;
    let mut signals = Signals::new()?;
    let Some(engine) = signals.unless_stopped(connect::engine(config, Schema::Migrate)).await? else { return Ok(()) };
    let listener = bind(&config.listen).await?;
    if let Some(token) = auth::ensure_manager(&engine).await? {
        print_token(&token)?;
    }

    let readiness = Readiness::default();
    let authenticator = Arc::new(auth::DatabaseAuthenticator::new(engine.clone()));
    let app = imgsrv_server::app(engine.clone(), authenticator, readiness.clone(), config.limits());
    let mut background = Background::start(engine.clone(), config.idle_by().is_none());
    // Whoever asks first for an index would wait until the whole catalogue is read.
    tokio::spawn(async move { engine.catalog().await.map(drop) });

    let address = listener.local_addr().map_err(|err| not_bound(&config.listen, &err))?;
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(%address, tls = tls.is_some(), node = config.node_name(), version, "listening");

    let mut crashed = false;
    let stop = async {
        tokio::select! {
            () = signals.received() => tracing::info!("stopping"),
            () = background.crashed() => crashed = true,
        }
        readiness.stop();
        background.stop.cancel();
    };
    match tls {
        Some(tls) => imgsrv_server::serve_tls(listener, tls, app, stop, config.shutdown_timeout).await,
        None => imgsrv_server::serve(listener, app, stop, config.shutdown_timeout).await,
    }
    if crashed { Err(background_ended()) } else { background.finish(config.shutdown_timeout).await }
}

/// Works in the background until the process is told to stop.
pub(crate) async fn work(config: &Config) -> Result<(), Failure> {
    if let Some(flag) = config.idle_by() {
        return Err(Failure::Config(format!("{flag}: leaves a worker nothing to do")));
    }
    let mut signals = Signals::new()?;
    let Some(engine) = signals.unless_stopped(connect::engine(config, Schema::Require)).await? else { return Ok(()) };
    let mut background = Background::start(engine, true);
    tracing::info!(node = config.node_name(), version = env!("CARGO_PKG_VERSION"), "working");
    tokio::select! {
        () = signals.received() => tracing::info!("stopping"),
        () = background.crashed() => return Err(background_ended()),
    }
    background.stop.cancel();
    background.finish(config.shutdown_timeout).await
}

async fn tls(config: &Config) -> Result<Option<Tls>, Failure> {
    let Some(files) = config.tls().map_err(Failure::Config)? else { return Ok(None) };
    Tls::load(files.cert, files.key).await.map(Some).map_err(|err| {
        let flag = match err {
            TlsError::Certificate(_) => "tls-cert-file",
            TlsError::Key(_) => "tls-key-file",
        };
        Failure::Config(format!("--{flag}: {err}"))
    })
}

/// The addresses to listen on, best first.
pub(crate) async fn addresses(listen: &Listen) -> Result<Vec<SocketAddr>, Failure> {
    let unresolved = |err| Failure::Config(format!("--listen: {listen} cannot be resolved: {err}"));
    listen.resolve().await.map_err(unresolved)
}

async fn bind(listen: &Listen) -> Result<TcpListener, Failure> {
    let addresses = addresses(listen).await?;
    TcpListener::bind(addresses.as_slice()).await.map_err(|err| not_bound(listen, &err))
}

fn not_bound(listen: &Listen, err: &io::Error) -> Failure {
    Failure::run(format!("cannot listen on {listen}: {err}"))
}

fn background_ended() -> Failure {
    Failure::run("the background work ended by itself; its panic is logged above")
}

/// The engine's own work, as long as it lasts.
struct Background {
    stop: CancellationToken,
    /// None on a node that leaves the work to others.
    task: Option<JoinHandle<()>>,
}

impl Background {
    fn start(engine: Engine, works: bool) -> Self {
        let stop = CancellationToken::new();
        let task = works.then(|| {
            let stop = stop.clone();
            tokio::spawn(async move { engine.run(stop).await })
        });
        Self { stop, task }
    }

    /// Returns if the work ends though nobody stopped it. A node that serves but never finishes an upload would look
    /// healthy; one that ends is started again.
    async fn crashed(&mut self) {
        match &mut self.task {
            Some(task) => {
                let _ = task.await;
                self.task = None;
            }
            None => std::future::pending().await,
        }
    }

    /// Waits until the leases are given back. Those that are not in time run out by themselves.
    async fn finish(self, timeout: Duration) -> Result<(), Failure> {
        if let Some(task) = self.task
            && tokio::time::timeout(timeout, task).await.is_err()
        {
            tracing::warn!("jobs did not stop in time; another worker takes them when their leases run out");
        }
        Ok(())
    }
}

/// The signals that tell a process to stop: a supervisor's and a terminal's.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|err| Failure::run(format!("signals: {err}")));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// What `work` answers; nothing when the process is told to stop before it does.
    async fn unless_stopped<T>(
        &mut self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<Option<T>, Failure> {
        tokio::select! {
            answer = work => answer.map(Some),
            () = self.received() => Ok(None),
        }
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
