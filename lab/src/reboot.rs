//! A host that boots again: what a kernel and `/run` hold is gone, what lies on the disk is not.

use std::fs;
use std::io;

use meshwork_sys::netns;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::lab::Lab;
use crate::link::Link;
use crate::namespace::Namespace;
use crate::nat;
use crate::remains::{self, PID_FILE};

impl Lab {
    /// Lets host `number` boot again: its daemon dies, its pods and everything in its kernel are gone, its link is plugged
    /// in anew under the conditions it had. The daemon waits for [`Host::start`].
    ///
    /// # Errors
    /// When something does not let go, or the host cannot be made again.
    pub fn reboot(&self, number: u16) -> Result<()> {
        let host = self.host(number);
        host.end();
        self.unplug(host)?;
        let link = self.link_of(number)?;
        Namespace::create(host.namespace().name().to_owned())?;
        if let Some(translator) = host.translator() {
            return nat::attach(&translator, host.namespace());
        }
        Link::default().write(&host.directory())?;
        self.fabric().attach(host.number(), host.namespace())?;
        self.link(number, &link)
    }

    /// Ends the host's namespaces, and its link with them.
    fn unplug(&self, host: &Host) -> Result<()> {
        let own = host.namespace().name().to_owned();
        let pods = host.pod_names()?.into_iter().map(|pod| self.name().pod(host.number(), &pod));
        let namespaces: Vec<_> = pods.chain([own]).collect();
        remains::end_processes_in(&namespaces)?;
        match host.translator() {
            Some(translator) => nat::detach(&translator)?,
            None => self.splice(host).remove_link()?,
        }
        for namespace in namespaces {
            netns::remove(&namespace)?;
        }
        for runtime in [host.socket(), host.directory().join(PID_FILE)] {
            match fs::remove_file(&runtime) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io(format!("remove {}", runtime.display()))(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
