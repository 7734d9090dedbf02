use std::{path::PathBuf, process::ExitCode};

use activity_service::{app, commands, config::Config};
use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use shared::runtime::{
    database::{self, Pool},
    lifecycle::{Exit, ended},
    terminal::{self, Completions},
};
use sqlx::Connection;

/// Set in .cargo/config.toml.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
    Migrate(database::Migrate),
    /// Print the effective settings as TOML, secrets masked
    Config,
    /// Look at messages that could not be counted, try them again or discard them
    #[command(subcommand)]
    Quarantine(commands::Quarantine),
    /// Look at what was lost before it was counted, or close it
    #[command(subcommand)]
    Gaps(commands::Gaps),
    /// See whether the figures are right
    #[command(subcommand)]
    Figures(commands::FiguresCommand),
    /// Give the business time zone another of its names
    #[command(subcommand)]
    Calendar(commands::Calendar),
    Pause(commands::Pause),
    Resume(commands::Resume),
    /// Print a script for a shell that completes commands and options
    Completions(Completions),
    /// Print the manual, as a page that man reads
    Man,
}

impl Command {
    /// The settings that the command uses, by their groups; none of them stands for all.
    fn needs(&self) -> &'static [&'static str] {
        match self {
            // A calendar is renamed whatever the setting says: what is kept counts.
            Self::Migrate(_) | Self::Calendar(_) => &["database"],
            Self::Quarantine(_) | Self::Gaps(_) | Self::Pause(_) | Self::Resume(_) => &["database", "statistics"],
            // It talks to no broker.
            Self::Figures(_) => &["database", "kafka.topics", "statistics"],
            Self::Serve | Self::Config | Self::Completions(_) | Self::Man => &[],
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _failpoints = fail::FailScenario::setup();
    let arguments = Arguments::parse();
    let command = arguments.command.unwrap_or(Command::Serve);
    match &command {
        Command::Completions(completions) => return printed(Ok(completions.of(Arguments::command()))),
        Command::Man => return printed(terminal::manual(Arguments::command())),
        _ => {}
    }
    let (config, shown) = match Config::load_for(command.needs(), arguments.config.as_deref()) {
        Ok(read) => read,
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
        Command::Serve => Ok(app::serve(config).await),
        Command::Config => return printed(Ok(shown.text)),
        Command::Completions(_) | Command::Man => Ok(Exit::Stopped),
        Command::Migrate(migrate) => database::migrate(&config.database, &app::TABLES, migrate).await,
        Command::Quarantine(quarantine) => {
            on_database(&config, "quarantine", async |pool, zone| {
                quarantine.run(pool, zone).await.map(|()| Exit::Stopped)
            })
            .await
        }
        Command::Gaps(gaps) => {
            on_database(&config, "gaps", async |pool, _| gaps.run(pool).await.map(|()| Exit::Stopped)).await
        }
        Command::Figures(figures) => {
            let topics = &config.consumer.topics;
            on_database(&config, "figures", async |pool, zone| figures.run(pool, topics, zone).await).await
        }
        Command::Calendar(calendar) => on_any_calendar(&config, calendar).await,
        Command::Pause(pause) => {
            on_database(&config, "pause", async |pool, _| pause.run(pool).await.map(|()| Exit::Stopped)).await
        }
        Command::Resume(resume) => {
            on_database(&config, "resume", async |pool, _| resume.run(pool).await.map(|()| Exit::Stopped)).await
        }
    })
}

async fn on_database(
    config: &Config,
    command: &str,
    work: impl AsyncFnOnce(&Pool, &str) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    database::reach(&config.database).await?.close().await?;
    let pool = config.database.command_pool(&format!("activity-service {command}"))?;
    let fits = app::fits(&pool, &config.database, &config.time_zone).await;
    match fits.context("the database cannot be used")? {
        Ok(zone) => work(&pool, &zone).await,
        Err(exit) => Ok(exit),
    }
}

/// For when the setting and what is kept do not agree: that is not asked.
async fn on_any_calendar(config: &Config, command: commands::Calendar) -> anyhow::Result<Exit> {
    database::reach(&config.database).await?.close().await?;
    let pool = config.database.command_pool("activity-service calendar")?;
    let found = match config.database.unfit_pooler().await.context("the database cannot be used")? {
        None => database::shortcoming(&pool, &app::TABLES).await.context("the database cannot be used")?,
        unfit => unfit,
    };
    if let Some(found) = found {
        terminal::complain(format_args!("database.url: {found}"));
        return Ok(Exit::WrongSettings);
    }
    if !app::schema_fits(&pool).await.context("the database cannot be used")? {
        return Ok(Exit::OldSchema);
    }
    command.run(&pool).await.map(|()| Exit::Stopped)
}

fn printed(text: std::io::Result<String>) -> ExitCode {
    match text.and_then(|text| terminal::print(&text)) {
        Ok(()) => Exit::Stopped.into(),
        Err(error) => {
            terminal::complain(format_args!("standard output: {error}"));
            Exit::Failed.into()
        }
    }
}
