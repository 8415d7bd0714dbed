"""The pod template that every stage shares: restricted, with its mounts, and nothing that it does not need."""

from typing import Any

from posttrain_contract import layout
from posttrain_contract.hub import SCHEME

from posttrain_operator.api.resources import Resource
from posttrain_operator.cluster import Json
from posttrain_operator.labels import Role
from posttrain_operator.plan.inputs import Inputs, Volume
from posttrain_operator.plan.metadata import Child
from posttrain_operator.settings import Settings

CONTAINER = "stage"
SCRATCH = "ephemeral-storage"
SCRATCH_LIMIT = "10Gi"
"""What a pod may write to its node: ``/tmp``, and its log."""
_TMP_LIMIT = "8Gi"
_LAST_SECONDS = 15
"""Of the grace period: after torchrun has killed what did not end, the supervisor tells how it ended."""


def pod_template(
    child: Child,
    *,
    config_map_name: str,
    inputs: Inputs,
    settings: Settings,
    container_name: str = CONTAINER,
    restart_policy: str = "Never",
) -> Json:
    """The template of a pod that runs one stage program with the configuration of a ConfigMap."""
    volumes = _volumes(child.resource, config_map_name, inputs)
    container = _container(child.resource, child.stage, settings, volumes)
    return {
        "metadata": _metadata(child),
        "spec": {
            **_scheduling(child.resource),
            "restartPolicy": restart_policy,
            "terminationGracePeriodSeconds": int(settings.termination_grace.total_seconds()),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "fsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{"name": container_name, **container, **_probes(child.role)}],
            "volumes": [{"name": volume.name, **volume.source} for volume in volumes],
        },
    }


def _metadata(child: Child) -> Json:
    """The operator's own labels win, though the API refuses others with their prefixes anyway."""
    run = child.resource.run
    annotations = {"annotations": dict(run.pod_annotations)} if run.pod_annotations else {}
    return {"labels": {**run.pod_labels, **child.labels}, **annotations}


def _container(resource: Resource, stage: str, settings: Settings, volumes: list[Volume]) -> Json:
    return {
        "image": resource.run.image or settings.images[stage],
        "command": ["python", "-m", f"posttrain_{stage}"],
        "args": ["--config", f"{layout.MOUNT_ROOT}/{layout.CONFIG_FILE}"],
        "env": _environment(resource, stage, settings),
        "ports": [{"name": "telemetry", "containerPort": layout.TELEMETRY_PORT}],
        "resources": _resources(resource),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": f"{layout.MOUNT_ROOT}/{layout.TERMINATION_LOG}",
        "volumeMounts": [_volume_mount(volume) for volume in volumes],
    }


def _volumes(resource: Resource, config_map_name: str, inputs: Inputs) -> list[Volume]:
    return [
        Volume("config", {"configMap": {"name": config_map_name}}, layout.CONFIG_MOUNT),
        Volume("store", {"persistentVolumeClaim": {"claimName": resource.run.storage.claim}}, layout.STORE_MOUNT),
        Volume("tmp", {"emptyDir": {"sizeLimit": _TMP_LIMIT}}, "/tmp"),  # noqa: S108 - a pod's own
        Volume("shm", {"emptyDir": {"medium": "Memory", "sizeLimit": resource.run.resources.shm}}, "/dev/shm"),  # noqa: S108
        *inputs.volumes,
    ]


def _volume_mount(volume: Volume) -> Json:
    absolute = volume.mount if volume.mount.startswith("/") else f"{layout.MOUNT_ROOT}/{volume.mount}"
    read_only = volume.mount == layout.CONFIG_MOUNT or volume.mount.startswith("inputs/")
    return {"name": volume.name, "mountPath": absolute, **({"readOnly": True} if read_only else {})}


def _environment(resource: Resource, stage: str, settings: Settings) -> list[Json]:
    """Variables that libraries read; no setting of ours travels this way."""
    fixed = {"HOME": "/tmp", "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}  # noqa: S108
    fixed["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if stage != "upload":
        # What an input on the Hub is was decided when it was fetched: no library looks there for more.
        fixed["HF_HUB_OFFLINE"] = "1"
    if resource.run.resources.gpus == 0:
        # More OpenMP threads than quiet cores make every step many times slower.
        fixed["OMP_NUM_THREADS"] = "1"
    if stage in ("finetune", "rl"):
        grace = int(settings.termination_grace.total_seconds())
        fixed["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(max(grace - _LAST_SECONDS, grace // 2))
    own = {variable.name: variable.value for variable in resource.run.env}
    variables: list[Json] = [{"name": name, "value": value} for name, value in {**fixed, **own}.items()]
    variables.append({"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    if _uses_hub(resource, stage) and (secret := resource.run.secrets.hugging_face) is not None:
        variables.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "token"}}})
    if _tracks_online(resource, stage) and (secret := resource.run.secrets.wandb) is not None:
        variables.append({"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": {"name": secret, "key": "apiKey"}}})
    return variables


def _uses_hub(resource: Resource, stage: str) -> bool:
    return stage == "upload" or any((item.uri or "").startswith(SCHEME) for item in resource.inputs.values())


def _tracks_online(resource: Resource, stage: str) -> bool:
    """Whether these pods send figures; rollout servers do not."""
    tracking = getattr(resource.spec, "tracking", None) if stage in ("finetune", "rl") else None
    return tracking is not None and tracking.wandb is not None and tracking.wandb.mode == "online"


def _resources(resource: Resource) -> Json:
    wanted = resource.run.resources
    amounts = {"cpu": wanted.cpu, "memory": wanted.memory}
    if wanted.gpus:
        amounts[wanted.gpu_resource] = str(wanted.gpus)
    # No scratch space is asked for: few jobs use much, and small nodes and queues that do not name it would refuse.
    return {"requests": {**amounts, SCRATCH: "0"}, "limits": {**amounts, SCRATCH: SCRATCH_LIMIT}}


def _scheduling(resource: Resource) -> Json:
    run = resource.run
    fields: dict[str, Any] = {
        "nodeSelector": run.node_selector,
        "tolerations": [t.model_dump(mode="json", by_alias=True, exclude_none=True) for t in run.tolerations],
        "serviceAccountName": run.service_account_name,
        "imagePullSecrets": [{"name": name} for name in run.image_pull_secrets],
    }
    return {key: value for key, value in fields.items() if value}


def _probes(role: Role) -> Json:
    """Servers are ready when they can generate; other pods serve nobody, so nobody waits for them."""
    if role is not Role.SERVERS:
        return {}
    probe = {"httpGet": {"path": "/readyz", "port": "telemetry"}, "periodSeconds": 2, "failureThreshold": 3}
    return {"readinessProbe": probe}
