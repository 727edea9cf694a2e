//! The `mayfly` binary.

use std::process::ExitCode;

use clap::Parser;
use mayfly::cli::{self, Cli};

#[tokio::main]
async fn main() -> ExitCode {
    match cli::main(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("mayfly: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}
