use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use order_service::{app, commands, config::Config};
use shared::runtime::{
    database::{self, Pool},
    lifecycle::{Exit, ended},
    telemetry::Telemetry,
    terminal::{self, Completions},
};
use sqlx::Connection;

/// Set in .cargo/config.toml.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
    Migrate(database::Migrate),
    /// Prints the effective settings as TOML, secrets masked.
    Config,
    /// Looks at the messages of the outbox and lets them be sent again.
    #[command(subcommand)]
    Messages(commands::Messages),
    /// Forgets customers.
    #[command(subcommand)]
    Customers(commands::Customers),
    /// Writes orders into files.
    #[command(subcommand)]
    Orders(commands::Orders),
    Pause(commands::Pause),
    Resume(commands::Resume),
    /// Prints a script for a shell that completes commands and options.
    Completions(Completions),
    /// Prints the manual, as a page that man reads.
    Man,
}

impl Command {
    /// The settings that the command uses, by their groups; none of them stands for all.
    fn needs(&self) -> &'static [&'static str] {
        match self {
            // It asks the topic, too.
            Self::Messages(commands::Messages::Verify { .. }) => &["database", "kafka"],
            Self::Messages(_)
            | Self::Migrate(_)
            | Self::Customers(_)
            | Self::Orders(_)
            | Self::Pause(_)
            | Self::Resume(_) => &["database"],
            Self::Serve | Self::Config | Self::Completions(_) | Self::Man => &[],
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let _failpoints = fail::FailScenario::setup();
    let cli = Cli::parse();
    let command = cli.command.unwrap_or(Command::Serve);
    let printed = match &command {
        Command::Completions(completions) => Some(Ok(completions.of(Cli::command()))),
        Command::Man => Some(terminal::manual(Cli::command())),
        _ => None,
    };
    if let Some(text) = printed {
        return ended(text.and_then(|text| terminal::print(&text)).map(|()| Exit::Stopped).map_err(Into::into));
    }
    let (config, shown) = match Config::load_for(command.needs(), cli.config.as_deref()) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            mistakes.iter().for_each(terminal::complain);
            return Exit::WrongSettings.into();
        }
    };
    shown.in_clear.iter().for_each(terminal::complain);
    if !shown.in_clear.is_empty() && !matches!(command, Command::Config) {
        return Exit::WrongSettings.into();
    }
    ended(match command {
        Command::Config => terminal::print(&shown.text).map(|()| Exit::Stopped).map_err(Into::into),
        Command::Completions(_) | Command::Man => Ok(Exit::Stopped),
        Command::Migrate(migrate) => database::migrate(&config.database, &app::TABLES, migrate).await,
        Command::Messages(messages) => {
            on_database(&config, "messages", async |pool| messages.run(&config, pool).await).await
        }
        Command::Customers(customers) => {
            on_database(&config, "customers", async |pool| customers.run(pool).await.map(|()| Exit::Stopped)).await
        }
        Command::Orders(orders) => on_database(&config, "orders", async |pool| orders.run(pool).await).await,
        Command::Pause(pause) => {
            on_database(&config, "pause", async |pool| pause.run(pool).await.map(|()| Exit::Stopped)).await
        }
        Command::Resume(resume) => {
            on_database(&config, "resume", async |pool| resume.run(pool).await.map(|()| Exit::Stopped)).await
        }
        Command::Serve => match Telemetry::start(&config.telemetry, "order-service") {
            Ok(telemetry) => app::serve(config, &telemetry).await,
            Err(error) => Err(error),
        },
    })
}

async fn on_database(
    config: &Config,
    command: &str,
    work: impl AsyncFnOnce(&Pool) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    database::reach(&config.database).await?.close().await?;
    let pool = config.database.command_pool(&format!("order-service {command}"))?;
    let found = match config.database.unfit_pooler().await? {
        None => database::shortcoming(&pool, &app::TABLES).await?,
        unfit => unfit,
    };
    if let Some(found) = found {
        terminal::complain(format_args!("database.url: {found}"));
        return Ok(Exit::WrongSettings);
    }
    if !database::schema_fits(&pool, &app::MIGRATIONS).await? {
        terminal::complain("the schema is older than this version needs: run order-service migrate");
        return Ok(Exit::OldSchema);
    }
    work(&pool).await
}
