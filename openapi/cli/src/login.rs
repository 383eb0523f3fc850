//! `imgsrv login`: keeping a token, so that it need not be given again.

use std::io::{self, IsTerminal};

use chrono::{TimeDelta, Utc};
use clap::Args;
use imgsrv_client::types::{CreatePrincipal, IssueApiToken};

use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::remote::{Common, Remote};
use crate::report::{Event, Report};

/// Keep a token for a server, and use both from now on. The token is asked for, or read from standard input.
#[derive(Args, Clone, Debug)]
pub struct LoginArgs {
    /// URL of the server
    #[arg(value_name = "URL")]
    url: String,

    /// The token manages access, as the bootstrap token does: make a publisher of this name with it, and keep the token
    /// of that one instead, which is valid for 90 days
    #[arg(long, value_name = "NAME")]
    new_publisher: Option<String>,

    #[command(flatten)]
    pub(crate) common: Common,
}

/// For how long a token is issued.
const VALID: TimeDelta = TimeDelta::days(90);

pub(crate) async fn login(args: LoginArgs, report: &Report) -> Result<(), Failure> {
    let given = match args.common.given_token()? {
        Some(token) => token,
        None => ask()?,
    };
    // Before a token is made that could not be kept.
    Credentials::check()?;
    let token = match &args.new_publisher {
        Some(name) => issue(&args.common.connect_to(&args.url, Some(&given))?, report, name).await?,
        None => given,
    };
    let publisher = args.common.connect_to(&args.url, Some(&token))?;
    publisher.may_publish(report).await?;
    let file = Credentials::keep(&args.url, &token)?;
    report.say(&Event::LoggedIn { server: &publisher.server, file: &file.to_string_lossy() });
    Ok(())
}

/// Only whom it concerns sees what is typed.
fn ask() -> Result<String, Failure> {
    let fail = |err: io::Error| Failure::usage(format!("no token: {err}"));
    let token = if io::stdin().is_terminal() {
        rpassword::prompt_password("Token: ").map_err(fail)?
    } else {
        io::read_to_string(io::stdin().lock()).map_err(fail)?
    };
    match token.trim() {
        "" => Err(Failure::usage("no token: nothing was typed, and nothing came from standard input")),
        token => Ok(token.to_owned()),
    }
}

#[expect(clippy::disallowed_methods, reason = "a client has no clock of the engine's")]
async fn issue(manager: &Remote, report: &Report, name: &str) -> Result<String, Failure> {
    let create = CreatePrincipal::builder().kind("service").display_name(name);
    let create = CreatePrincipal::try_from(create).map_err(|err| Failure::usage(format!("--new-publisher: {err}")))?;
    let ask = async |client: &imgsrv_client::Client| client.create_principal().body(create.clone()).send().await;
    let principal = manager.ask_once(ask).await?.id;
    let ask = async |client: &imgsrv_client::Client| {
        client.assign_role().principal(principal.as_str()).role("content-writer").send().await
    };
    manager.ask(report, ask).await?;
    let token = IssueApiToken { name: None, expires_at: Utc::now() + VALID };
    let ask = async |client: &imgsrv_client::Client| {
        client.issue_api_token().principal(principal.as_str()).body(token.clone()).send().await
    };
    Ok(manager.ask_once(ask).await?.plaintext)
}
