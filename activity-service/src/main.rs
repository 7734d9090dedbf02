use std::{path::PathBuf, process::ExitCode};

use activity_service::{app, commands, config::Config};
use clap::{Parser, Subcommand};
use shared::lifecycle::Exit;

/// Counts what other services announce on Kafka, by day and type, and tells the figures.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// A TOML file with settings; the environment (ACTIVITY_SERVICE__...) wins over it
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Count activities and answer requests, until told to stop (the default)
    Serve,
    /// Bring the database's schema up to date, then end
    Migrate,
    /// Print the effective settings as TOML, secrets masked
    Config,
    /// Look at messages that could not be counted, try them again or discard them
    #[command(subcommand)]
    Quarantine(commands::Quarantine),
    /// Look at what was lost before it was counted, or close it
    #[command(subcommand)]
    Gaps(commands::Gaps),
    /// Give the business time zone another of its names
    #[command(subcommand)]
    Calendar(commands::Calendar),
}

#[tokio::main]
async fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _failpoints = fail::FailScenario::setup();
    let arguments = Arguments::parse();
    let (config, effective) = match Config::read(arguments.config.as_deref()) {
        Ok(read) => read,
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| eprintln!("{mistake}"));
            return Exit::WrongSettings.into();
        }
    };
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => app::serve(config).await.into(),
        Command::Migrate => app::migrate(&config).await.into(),
        Command::Quarantine(quarantine) => app::quarantine(&config, quarantine).await.into(),
        Command::Calendar(calendar) => app::calendar(&config, calendar).await.into(),
        Command::Gaps(gaps) => app::gaps(&config, gaps).await.into(),
        Command::Config => {
            print!("{effective}");
            Exit::Stopped.into()
        }
    }
}
