#!/usr/bin/env bash
# A cluster for trials: kind (which needs Docker), with Kubeflow's training operator and Kueue at the versions of docs/install.md.
# What is there already stays; the context is kind-posttrain. What cannot be installed is said by the program that failed.
set -euo pipefail

TRAINING_OPERATOR=v1.9.4
KUEUE=v0.19.0
name=posttrain

if ! kind get clusters 2>/dev/null | grep -qx "$name"; then
  kind create cluster --name "$name" --wait 5m
fi
kubectl() { command kubectl --context "kind-$name" "$@"; }

kubectl apply --server-side -k \
  "https://github.com/kubeflow/trainer.git/manifests/overlays/standalone?ref=$TRAINING_OPERATOR"
# Kueue 0.19 has the integration of PyTorchJobs, but switched off (docs/queues.md).
curl --fail --silent --show-error --location \
  "https://github.com/kubernetes-sigs/kueue/releases/download/$KUEUE/manifests.yaml" |
  sed 's|# - "kubeflow.org/pytorchjob"|- "kubeflow.org/pytorchjob"|' |
  kubectl apply --server-side -f -
kubectl -n kubeflow rollout status deployment/training-operator --timeout=5m
kubectl -n kueue-system rollout status deployment/kueue-controller-manager --timeout=5m
