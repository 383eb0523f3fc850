//! `imgsrv alias`: which version a name means.

use clap::{Args, Subcommand};
use imgsrv_client::types::{Alias, AliasName, ImageName, PutAlias, VersionName};
use serde_json::json;

use crate::catalog::{aliases, day};
use crate::failure::{Failure, Kind};
use crate::remote::Common;
use crate::report::{Event, Report};
use crate::table::{self, print_json};

/// List, set and remove the aliases of an image.
#[derive(Args, Clone, Debug)]
pub struct AliasArgs {
    #[command(subcommand)]
    command: AliasCommand,

    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Clone, Debug, Subcommand)]
enum AliasCommand {
    /// List them
    List { image: ImageName },
    /// Make an alias, or point it at another version
    Set { image: ImageName, alias: AliasName, version: VersionName },
    /// Remove an alias
    #[command(alias = "rm")]
    Remove { image: ImageName, alias: AliasName },
}

pub(crate) async fn alias(args: AliasArgs, report: &Report) -> Result<(), Failure> {
    let remote = args.common.connect()?;
    match args.command {
        AliasCommand::List { image } => {
            let aliases = aliases(&remote, report, &image).await?;
            if report.is_json() {
                return print_json(&json!({ "aliases": aliases }));
            }
            let row = |alias: &Alias| [alias.alias.to_string(), alias.version.to_string(), day(alias.updated_at)];
            table::print(["ALIAS", "VERSION", "SINCE"], &aliases.iter().map(row).collect::<Vec<_>>())
        }
        AliasCommand::Set { image, alias, version } => {
            let to = PutAlias { version: version.clone() };
            let put = async |client: &imgsrv_client::Client| {
                client.put_alias().image(image.as_str()).alias(alias.as_str()).body(to.clone()).send().await
            };
            remote.ask(report, put).await?;
            report.say(&Event::Alias { image: &image, alias: &alias, version: &version });
            Ok(())
        }
        AliasCommand::Remove { image, alias } => {
            let get = async |client: &imgsrv_client::Client| {
                client.get_alias().image(image.as_str()).alias(alias.as_str()).send().await
            };
            remote.ask(report, get).await?;
            let delete = async |client: &imgsrv_client::Client| {
                client.delete_alias().image(image.as_str()).alias(alias.as_str()).send().await
            };
            match remote.ask(report, delete).await {
                // It was there: somebody else removed it, or this did, and the answer was lost.
                Err(failure) if failure.kind() == Kind::NotFound => {}
                deleted => drop(deleted?),
            }
            report.say(&Event::AliasRemoved { image: &image, alias: &alias });
            Ok(())
        }
    }
}
