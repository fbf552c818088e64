//! Which GPUs a process of its own may see.

use super::GpuShare;

/// The environment variable that says to CUDA which devices a process sees. It counts for what reads it when it begins, so only who starts the
/// process can set it.
pub const VISIBLE_DEVICES: &str = "CUDA_VISIBLE_DEVICES";

/// What [`VISIBLE_DEVICES`] has to say in a process that has these GPUs of its node: none is the empty text, with which CUDA sees none. `node` is what it
/// says for the node itself, whose GPUs are then counted along that list; one beyond its end is left out.
pub fn visible_devices(gpus: &[GpuShare], node: Option<&str>) -> String {
    let names: Option<Vec<&str>> =
        node.map(|list| list.split(',').map(str::trim).filter(|one| !one.is_empty()).collect());
    let name = |share: &GpuShare| match &names {
        None => Some(share.index.to_string()),
        Some(names) => names.get(share.index as usize).map(|name| (*name).to_owned()),
    };
    gpus.iter().filter_map(name).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Amount;

    #[test]
    fn a_process_sees_what_it_was_given_of_what_its_node_sees() {
        let gpus = [1, 2].map(|index| GpuShare { index, amount: Amount::ONE });
        assert_eq!(visible_devices(&gpus, None), "1,2");
        assert_eq!(visible_devices(&gpus, Some("4, GPU-5e,6")), "GPU-5e,6");
        assert_eq!(visible_devices(&gpus, Some("4,5")), "5", "the node has promised more than it sees");
        assert_eq!(visible_devices(&gpus, Some("")), "");
        assert_eq!(visible_devices(&[], Some("4,5")), "");
        assert_eq!(visible_devices(&[], None), "");
    }
}
