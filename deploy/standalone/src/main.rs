//! `cargo run`: Parley in one process, with what to try first.

use clap::Parser;
use shared::{auth::AuthMode, files::restrict_new_files, lifecycle::signalled, telemetry};
use standalone::{App, Config};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    restrict_new_files();
    let stop = signalled()?;
    telemetry::init(&config.common.log)?;
    let console = config.ingress.enable_console;
    let auth = &config.common.auth;
    let demo = auth.auth_mode == AuthMode::Simple && auth.auth_users_file.is_none();
    let app = App::bind(config).await?;
    println!("ingress  http://{}", app.ingress_addr()?);
    println!("proc     http://{}", app.proc_addr()?);
    if console {
        println!("console  http://{}/", app.ingress_addr()?);
    }
    if demo {
        println!("\nTry it as the demo user ada:");
        println!(
            "  curl -s -H 'Authorization: Bearer dev-ada' http://{}/api/auth/me",
            app.ingress_addr()?
        );
    }
    app.run(stop).await
}
