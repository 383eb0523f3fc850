//! The server at the other end, and the patience with it.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use imgsrv_client::types::Problem;
use imgsrv_client::{Client, Error, ResponseValue, connect_with};
use tokio::time::{sleep, timeout};

use crate::credentials::Credentials;
use crate::failure::{Failure, Kind};
use crate::report::Report;

/// How long an answer to a small question may take.
pub(crate) const ANSWER: Duration = Duration::from_mins(1);
/// How long a transfer may stand still.
pub(crate) const STALLED: Duration = Duration::from_mins(2);
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// The longest that a server may ask for.
const LONGEST_WANTED: Duration = Duration::from_mins(5);
/// How often a transfer may break after something moved.
const BREAKS: u32 = 50;

/// Which server, as whom, and how to tell of it.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Server and output")]
pub(crate) struct Common {
    /// Print JSON: what was asked for, or an event a line
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// URL of the server [default: that of the last login]
    #[arg(long, global = true, env = "IMGSRV_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,

    /// Token to publish with; everybody on this machine can see it, so rather use one of the other ways
    #[arg(long, global = true, env = "IMGSRV_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,

    /// File that holds the token
    #[arg(long, global = true, env = "IMGSRV_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Certificates, in PEM, to trust beside those of the system
    #[arg(long, global = true, env = "IMGSRV_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// For how many seconds to go on trying while the server is not there
    #[arg(long, global = true, env = "IMGSRV_RETRY_FOR", value_name = "SECONDS", default_value_t = 120)]
    retry_for: u64,
}

impl Common {
    /// The token that was given with this command, if one was.
    pub(crate) fn given_token(&self) -> Result<Option<String>, Failure> {
        if let Some(token) = &self.token {
            return Ok(Some(token.trim().to_owned()));
        }
        let Some(path) = &self.token_file else { return Ok(None) };
        let text = std::fs::read_to_string(path).map_err(|err| Failure::file(path, &err))?;
        Ok(Some(text.trim().to_owned()))
    }

    /// The server that is asked for, as who was given or has logged in.
    pub(crate) fn connect(&self) -> Result<Remote, Failure> {
        let (server, token) = (self.server.clone(), self.given_token()?);
        if let (Some(server), Some(_)) = (&server, &token) {
            return self.connect_to(server, token.as_deref());
        }
        let kept = Credentials::load()?;
        let server = server.or_else(|| kept.server.clone());
        let server =
            server.ok_or_else(|| Failure::usage("which server? Give --server, or `imgsrv login URL` first"))?;
        let token = token.or_else(|| kept.token(&server).map(str::to_owned));
        self.connect_to(&server, token.as_deref())
    }

    pub(crate) fn connect_to(&self, server: &str, token: Option<&str>) -> Result<Remote, Failure> {
        let is_server = |url: reqwest::Url| {
            ["http", "https"].contains(&url.scheme()) && url.query().is_none() && url.fragment().is_none()
        };
        if !reqwest::Url::parse(server).is_ok_and(is_server) {
            return Err(Failure::usage(format!("{server}: a server is a URL, as in https://images.example.org")));
        }
        let mut builder = reqwest::Client::builder().user_agent(concat!("imgsrv/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &self.ca_file {
            let pem = std::fs::read(path).map_err(|err| Failure::file(path, &err))?;
            let certificates =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|err| Failure::from(err).about(path.display()))?;
            builder = builder.tls_certs_merge(certificates);
        }
        let client = connect_with(builder, server, token).map_err(|err| match err {
            Error::CommunicationError(err) => Failure::from(err),
            err => Failure::usage(err.to_string()),
        })?;
        Ok(Remote { client, server: server.to_owned(), retry_for: Duration::from_secs(self.retry_for) })
    }
}

/// The server.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(crate) client: Client,
    pub(crate) server: String,
    retry_for: Duration,
}

impl Remote {
    /// Asks, and asks again while the server is not there. So whatever is asked must bear being done twice.
    pub(crate) async fn ask<T>(
        &self,
        report: &Report,
        question: impl AsyncFn(&Client) -> Result<ResponseValue<T>, Error<Problem>>,
    ) -> Result<T, Failure> {
        let mut patience = self.patience();
        loop {
            match self.attempt(&question).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => patience.pause(report, failed).await?,
            }
        }
    }

    /// Asks for what must not be done twice.
    pub(crate) async fn ask_once<T>(
        &self,
        question: impl AsyncFn(&Client) -> Result<ResponseValue<T>, Error<Problem>>,
    ) -> Result<T, Failure> {
        self.attempt(&question).await.map_err(|failed| failed.failure)
    }

    async fn attempt<T>(
        &self,
        question: &impl AsyncFn(&Client) -> Result<ResponseValue<T>, Error<Problem>>,
    ) -> Result<T, Failed> {
        match timeout(ANSWER, question(&self.client)).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(Failed::new(Failure::new(Kind::Unavailable, "no answer for a minute"))),
        }
    }

    /// A token that is of no use is better found now than when hours of work depend on it.
    pub(crate) async fn may_publish(&self, report: &Report) -> Result<(), Failure> {
        match self.ask(report, async |client| client.list_uploads().limit(NonZeroU64::MIN).send().await).await {
            Err(failure) if failure.status() == Some(403) => Err(Failure::new(
                Kind::Denied,
                "this token may not publish; one that manages access makes one that may: \
                 imgsrv login URL --new-publisher NAME",
            )),
            answer => answer.map(drop),
        }
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience { retry_for: self.retry_for, failing_since: None, pause: SHORTEST_PAUSE, breaks: 0 }
    }
}

/// A failure, and how long the server wants to be left alone.
pub(crate) struct Failed {
    failure: Failure,
    retry_after: Option<Duration>,
}

impl Failed {
    pub(crate) fn new(failure: Failure) -> Self {
        Self { failure, retry_after: None }
    }
}

impl From<Error<Problem>> for Failed {
    fn from(err: Error<Problem>) -> Self {
        let retry_after = match &err {
            Error::ErrorResponse(problem) => problem.headers().get("retry-after"),
            Error::UnexpectedResponse(answer) => answer.headers().get("retry-after"),
            _ => None,
        };
        let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        Self { retry_after: seconds.map(Duration::from_secs), failure: err.into() }
    }
}

/// How long something has been failing.
pub(crate) struct Patience {
    retry_for: Duration,
    failing_since: Option<Instant>,
    pause: Duration,
    breaks: u32,
}

impl Patience {
    /// Waits before the next attempt, or says that there is to be none.
    pub(crate) async fn pause(
        &mut self,
        report: &Report,
        Failed { failure, retry_after }: Failed,
    ) -> Result<(), Failure> {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if failure.kind() != Kind::Unavailable || since.elapsed() >= self.retry_for {
            return Err(failure);
        }
        let pause = retry_after.map_or(self.pause, |wanted| wanted.clamp(self.pause, LONGEST_WANTED));
        // Many clients that lost one server should not come back at once.
        let pause = pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        report.retrying(&failure, pause);
        sleep(pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    /// The server is there: something moved. A transfer that breaks again and again comes to its end all the same.
    pub(crate) fn moved(&mut self) {
        if self.failing_since.is_some() {
            self.breaks += 1;
        }
        if self.breaks < BREAKS {
            self.failing_since = None;
            self.pause = SHORTEST_PAUSE;
        }
    }
}
