//! `mayfly authority`.

use clap::{Subcommand, ValueEnum};
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::authorities_client::AuthoritiesClient;
use serde_json::json;

use super::connect::{self, Acting, Channel};
use super::exit::Failure;
use super::global::Global;
use super::output::{self, Format};

/// See the signing keys, and rotate them now (operator)
///
/// They rotate by themselves: the next one is prepared and published, starts signing when verifiers have had time to fetch it, and
/// stays listed until the last credential that it signed has expired.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One line for each authority
    List,
    /// Make and publish the next one of a kind; it starts signing when it has been published for long enough
    Prepare {
        /// x509, jwt or rs256
        #[arg(value_enum)]
        kind: Kind,
    },
    /// Let the prepared one sign; the active one retires
    Activate {
        /// x509, jwt or rs256
        #[arg(value_enum)]
        kind: Kind,
        /// Even if verifiers may not have fetched it yet
        #[arg(long)]
        now: bool,
    },
    /// Prepare and activate: at once for x509, for the others when the key has been published for long enough
    Rotate {
        /// x509, jwt or rs256
        #[arg(value_enum)]
        kind: Kind,
        /// Even if verifiers may not have fetched it yet
        #[arg(long)]
        now: bool,
    },
    /// Withdraw a prepared one
    Retire {
        /// As `mayfly authority list` prints it
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
    /// Its key is compromised: nothing that it ever signed is valid any more. For the active one, rotate --now first
    Taint {
        /// As `mayfly authority list` prints it
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    X509,
    Jwt,
    Rs256,
}

impl Kind {
    fn wire(self) -> i32 {
        match self {
            Kind::X509 => v1::AuthorityKind::X509.into(),
            Kind::Jwt => v1::AuthorityKind::Jwt.into(),
            Kind::Rs256 => v1::AuthorityKind::Rs256.into(),
        }
    }
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let mut client = AuthoritiesClient::new(connect::as_identity_or_operator(global, &args.acting).await?);
    let (authority, revision) = match args.command {
        Command::List => return list(client, global.output).await,
        Command::Prepare { kind } => {
            let got = client.prepare_authority(v1::PrepareAuthorityRequest { kind: kind.wire() }).await?.into_inner();
            (got.authority, got.revision)
        }
        Command::Activate { kind, now } => {
            let request = v1::ActivateAuthorityRequest { kind: kind.wire(), now };
            let got = client.activate_authority(request).await?.into_inner();
            (got.authority, got.revision)
        }
        Command::Rotate { kind, now } => {
            let request = v1::RotateAuthorityRequest { kind: kind.wire(), now };
            let got = client.rotate_authority(request).await?.into_inner();
            (got.authority, got.revision)
        }
        Command::Retire { id } => {
            let got = client.retire_authority(v1::RetireAuthorityRequest { id }).await?.into_inner();
            (got.authority, got.revision)
        }
        Command::Taint { id } => {
            let got = client.taint_authority(v1::TaintAuthorityRequest { id }).await?.into_inner();
            (got.authority, got.revision)
        }
    };
    output::authority::receipt(global.output, &authority.unwrap_or_default(), revision)
}

async fn list(mut client: AuthoritiesClient<Channel>, format: Format) -> Result<(), Failure> {
    let got = client.list_authorities(v1::ListAuthoritiesRequest {}).await?.into_inner();
    let objects: Vec<_> = got.authorities.iter().map(output::authority::object).collect();
    output::print(format, &json!({ "authorities": objects, "revision": got.revision }), || {
        output::lines(&got.authorities, "", output::authority::line)
    })
}
