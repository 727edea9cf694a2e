//! `mayfly login`.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;

use super::exit::Failure;
use super::global::Global;
use super::output::user::Names;
use super::{output, place};
use crate::login::device::Invitation;
use crate::login::{code, device, kept};
use crate::telemetry::escaped;

/// Sign in at the provider of the context, and keep the token for the commands that need one
///
/// A browser opens the provider's page and is redirected to a port of this machine (authorization code with PKCE). With --device
/// you use the browser of another machine (device flow). The token is kept where only you can read it, in the context or, with
/// `mayfly dev`, in the home. `mayfly my`, `approve`, `spawn` and the commands of operators use it, and refresh it if the provider
/// allows that.
#[derive(clap::Args)]
pub(super) struct Args {
    /// For a machine without a browser: show a code to enter on another one
    #[arg(long, conflicts_with = "forget")]
    device: bool,
    /// Print the page's address, and start no browser
    #[arg(long, conflicts_with_all = ["device", "forget"])]
    no_browser: bool,
    /// Sign out: delete the tokens that are kept, and revoke them at the provider where it can (RFC 7009)
    #[arg(long)]
    forget: bool,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let nowhere = "nobody can sign in here: make a context with `mayfly context add NAME --server ADDRESS --bundle FILE --login URL --client ID`";
    let (dir, provider) = place::login(global)?.ok_or_else(|| Failure::usage(nowhere))?;
    if args.forget {
        let forgotten = kept::forget(&dir, &provider).await.map_err(|e| {
            let failure = Failure::from(e);
            Failure { message: format!("forgotten here, and the provider may not know it: {}", failure.message), ..failure }
        })?;
        let text = match (forgotten.kept, forgotten.revoked) {
            (false, _) => "nobody was signed in",
            (true, true) => "the tokens are forgotten, and the provider has ended the sign-in",
            (true, false) => "the tokens are forgotten",
        };
        let object = json!({ "forgotten": forgotten.kept, "revoked": forgotten.revoked });
        return output::print(global.output, &object, || text.to_owned());
    }
    let tokens = if args.device {
        device::sign_in(&provider, invite).await?
    } else {
        code::sign_in(&provider, |page| {
            say(&format!("sign in at {}", escaped(&page)));
            if !args.no_browser {
                browse(page);
            }
        })
        .await?
    };
    let said = kept::keep(&dir, &provider, &tokens)?;
    let until = output::time(said.ends_at);
    let object = json!({
        "user": { "iss": said.iss, "sub": said.sub },
        "audiences": said.audiences,
        "expires_at": until,
        "refreshes": said.refreshes,
    });
    output::print(global.output, &object, || {
        let then = if said.refreshes { ", and refreshed after that" } else { "" };
        format!("signed in as {}, until {until}{then}", Names::known(global).of(&said.iss, &said.sub))
    })
}

fn invite(invitation: &Invitation) {
    let Invitation { page, code, complete } = invitation;
    say(&format!("sign in at {}", escaped(page)));
    say(&format!("and enter   {}", escaped(code)));
    if let Some(complete) = complete {
        say(&format!("or visit    {}", escaped(complete)));
    }
}

/// Prints a line to stderr. If that fails, nobody reads it.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Opens the page in the browser of this desktop, if there is one. The address was printed in any case.
fn browse(page: &str) {
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let _ = Command::new(opener).arg(page).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}
