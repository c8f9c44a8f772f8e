//! `meshctl`: shows and steers the mesh of this node.
//!
//! What it shows comes from the control API as it is; only `attach` and `detach` do work of their own. Exit codes: 0
//! yes, 1 no or unhealthy, 2 usage, 3 the daemon cannot be reached.

mod answer;
mod cli;
mod connect;
mod events;
mod output;
mod pods;
mod secret;
mod table;
mod units;
mod verbs;
mod yaml;

use std::process::ExitCode;

use clap::Parser as _;
use meshwork_api::client::ClientError;
use meshwork_attach::AttachError;

/// The daemon does not answer.
const UNREACHABLE: u8 = 3;

/// The daemon does not understand what was asked for: as wrong as any other usage.
const USAGE: u8 = 2;

/// HTTP status by which the daemon says so.
const BAD_REQUEST: u16 = 400;

/// The answer is no, or what was asked for failed.
const NO: u8 = 1;

fn main() -> ExitCode {
    // Wrong usage ends here, with 2.
    let cli = cli::Cli::parse();
    match verbs::run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => NO.into(),
        Err(error) => {
            eprintln!("meshctl: {}", units::plain(&format!("{error:#}")));
            failure(&error).into()
        }
    }
}

fn failure(error: &anyhow::Error) -> u8 {
    let client = error.chain().find_map(|cause| {
        cause.downcast_ref::<ClientError>().or_else(|| cause.downcast_ref::<AttachError>().and_then(behind))
    });
    match client {
        Some(ClientError::Unreachable { .. }) => UNREACHABLE,
        Some(ClientError::Api { status: BAD_REQUEST, .. }) => USAGE,
        _ => NO,
    }
}

/// The refusal of the daemon behind a failed link.
fn behind(error: &AttachError) -> Option<&ClientError> {
    match error {
        AttachError::Client(error) => Some(error),
        AttachError::Undone { cause, .. } => behind(cause),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use meshwork_api::client::Client;
    use meshwork_api::model::{ErrorDetail, Status};

    use super::*;

    #[test]
    fn an_unreachable_daemon_is_exit_code_3_however_deep() {
        let absent = || Client::new("/nonexistent/meshd.sock").get::<Status>("/v1/status").unwrap_err();
        assert_eq!(failure(&absent().into()), UNREACHABLE);
        let undone = AttachError::Undone { cause: Box::new(AttachError::Client(absent())), left: vec![] };
        assert_eq!(failure(&anyhow::Error::from(undone).context("attach")), UNREACHABLE);
        assert_eq!(failure(&anyhow::anyhow!("no")), NO);
    }

    #[test]
    fn what_the_daemon_does_not_understand_is_wrong_usage_and_what_it_refuses_is_a_no() {
        let refused = |status| {
            let error = ErrorDetail { code: "c".to_owned(), message: "m".to_owned(), hint: "h".to_owned() };
            ClientError::Api { status, error }
        };
        assert_eq!(failure(&refused(400).into()), USAGE);
        assert_eq!(failure(&AttachError::Client(refused(400)).into()), USAGE);
        assert_eq!(failure(&refused(404).into()), NO);
    }
}
