//! `msgin5g client configure`: what the Configuration Function says about this UE (TS 23.554 clause 8.1).

use std::{process::ExitCode, sync::Arc};

use client::SharedKeySource;
use serde::Serialize;
use tokio::time::timeout;

use crate::{
    cli::ProfileArgs,
    outcome::{Failure, Output},
    profile::{ProfileFile, configuration_failure},
};

#[derive(Serialize)]
struct Configured {
    ue_service_id: String,
    /// `coaps+tcp://FQDN:PORT/PATH`
    server: String,
    /// Where to connect to.
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    segment_size: Option<u32>,
    /// Where it is kept.
    kept: String,
}

pub(super) async fn run(arguments: ProfileArgs, output: Output) -> Result<ExitCode, Failure> {
    let file = ProfileFile::load(&arguments.profile)?;
    let Some((function, kept)) = file.configuration_function() else {
        return Err(Failure::new("the profile itself says who the client is and where its server is")
            .help("[configuration] in the place of ue_service_id and [server] names a Configuration Function"));
    };
    let source = Arc::new(SharedKeySource::new(file.key_source()?));
    output.progress(format_args!("asking {} ({}) ...", function.fqdn.as_str(), function.address));
    let retrieved = timeout(arguments.timeout, function.retrieve(source))
        .await
        .map_err(|_| {
            Failure::new(format!("no configuration within {:?}", arguments.timeout))
                .help("is the Configuration Function up, and is configuration.address its address?")
        })?
        .map_err(|error| configuration_failure(&error))?;
    function.keep(&kept, &retrieved).map_err(|error| configuration_failure(&error))?;
    let configuration = retrieved.configuration;
    let configured = Configured {
        ue_service_id: configuration.ue_service_id.to_string(),
        server: configuration.server.to_string(),
        address: configuration.server.socket(),
        segment_size: configuration.segment_size,
        kept: kept.display().to_string(),
    };
    output.print(&configured, |configured| {
        let size = configured.segment_size.map_or("the server's".to_owned(), |octets| format!("{octets} octets"));
        format!(
            "UE Service ID  {}\nserver         {} ({})\nsegment size   {size}\nkept in        {}",
            configured.ue_service_id, configured.server, configured.address, configured.kept
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
