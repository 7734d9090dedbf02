use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use order_service::{app, commands, config::Config};
use shared::{database, lifecycle::Exit, telemetry::Telemetry};

/// Takes orders and announces each of them, once.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// A TOML file with settings; the environment wins over it.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the service (the default).
    Serve,
    /// Brings the schema up to date and ends.
    Migrate,
    /// Prints the effective settings as TOML, secrets masked.
    Config,
    /// Looks at the messages of the outbox and lets them be sent again.
    #[command(subcommand)]
    Messages(commands::Messages),
}

#[tokio::main]
async fn main() -> ExitCode {
    let _failpoints = fail::FailScenario::setup();
    let cli = Cli::parse();
    let (config, shown) = match Config::load(cli.config.as_deref()) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| eprintln!("{mistake}"));
            return Exit::WrongSettings.into();
        }
    };
    let done = match cli.command.unwrap_or(Command::Serve) {
        Command::Config => {
            print!("{shown}");
            Ok(Exit::Stopped)
        }
        Command::Migrate => database::migrate(&config.database, &app::SCHEMA).await.map(|()| Exit::Stopped),
        Command::Messages(messages) => run_on_database(&config, messages).await,
        Command::Serve => match Telemetry::start(&config.telemetry, "order-service") {
            Ok(telemetry) => app::serve(config, &telemetry).await,
            Err(error) => Err(error),
        },
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        Exit::Failed
    })
    .into()
}

async fn run_on_database(config: &Config, messages: commands::Messages) -> anyhow::Result<Exit> {
    let pool = config.database.pool("order-service messages")?;
    if !database::schema_fits(&pool, &app::SCHEMA).await? {
        eprintln!("the schema is older than this version needs: run order-service migrate");
        return Ok(Exit::OldSchema);
    }
    messages.run(config, &pool).await
}
