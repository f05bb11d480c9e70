//! The packet programs on devices: found, put there, taken away.

use std::collections::BTreeMap;

use super::{
    Attached, Kernel,
    link::{self, Place},
    pins,
};
use crate::{
    error::{KernelError, Step},
    object::{DEVICE_PROGRAMS, DeviceUse, Loaded, Role},
    sys::{LinkInfo, LinkTarget},
};

impl Kernel {
    /// Devices that have programs, by index, whichever agent put them there, and for which role.
    pub(crate) fn served_devices(&self) -> Result<BTreeMap<u32, Role>, KernelError> {
        let mut served = BTreeMap::new();
        for (program, attach_type, of) in DEVICE_PROGRAMS {
            let Some(role) = of.role() else { continue };
            for index in self.pins.device_links(program)? {
                let info = LinkInfo::Device { index, attach_type: attach_type as u32 };
                if link::found(info, &self.pins.device_link(program, index)).is_some() {
                    served.insert(index, role);
                }
            }
        }
        Ok(served)
    }

    /// Makes the packet programs run on exactly these devices, by index. One device's failure does
    /// not keep the others from it.
    pub(crate) fn attach_devices(&self, devices: &BTreeMap<u32, Attached>) -> Vec<KernelError> {
        let begun = self.object.programs().and_then(|all| Ok((all, self.standing.attaching()?)));
        let (programs, mut attaching) = match begun {
            Ok(begun) => begun,
            Err(error) => return vec![error],
        };
        let mut errors = Vec::new();
        let of_role =
            |of: DeviceUse| devices.iter().filter(move |(_, device)| of.covers(device.role));
        for (program, of) in &programs.of_devices {
            for (index, device) in of_role(*of) {
                match self.attach_device(program, *index, &device.name) {
                    Ok(()) => attaching.note_link(),
                    Err(error) => errors.push(error),
                }
            }
        }
        // Now that what takes their place on a device of another role is there; what makes answers the service's goes last.
        for (program, of) in programs.of_devices.iter().rev() {
            let is_wanted = |index: u32| of_role(*of).any(|(wanted, _)| *wanted == index);
            errors.extend(self.detach_others(program.name, is_wanted).err());
        }
        // Where one of this version's is missing, another version's may be all that serves the device.
        if errors.is_empty() {
            let own = programs.of_devices.iter().map(|(program, _)| program.name);
            errors.extend(self.detach_unknown(|name| pins::device_of(name).is_some(), &own).err());
        }
        errors
    }

    fn attach_device(
        &self,
        Loaded { name, attach_type, fd, .. }: &Loaded,
        index: u32,
        device: &str,
    ) -> Result<(), KernelError> {
        let place = Place {
            target: LinkTarget::Device(index),
            info: LinkInfo::Device { index, attach_type: *attach_type as u32 },
        };
        let pin = self.pins.device_link(name, index);
        let step = Step::AttachDevice(name, device.into());
        link::attach(fd, *attach_type, place, &pin, &step).map(drop)
    }

    fn detach_others(
        &self,
        program: &str,
        is_wanted: impl Fn(u32) -> bool,
    ) -> Result<(), KernelError> {
        for index in self.pins.device_links(program)? {
            if !is_wanted(index) {
                pins::detach(&self.pins.device_link(program, index))?;
            }
        }
        Ok(())
    }
}
