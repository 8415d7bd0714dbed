#!/usr/bin/env bash
# A cluster for trials: kind (which needs Docker), with Kubeflow's training operator and Kueue, at the commits that hack/kind names.
# What is there already stays; the context is kind-posttrain. What cannot be installed is said by the program that failed.
set -euo pipefail
cd "$(dirname "$0")/kind"

if ! kind get clusters 2>/dev/null | grep -qx posttrain; then
  kind create cluster --config cluster.yaml --wait 5m
fi
kind export kubeconfig --name posttrain   # KUBECONFIG may be another file than when the cluster was made
kubectl() { command kubectl --context kind-posttrain "$@"; }

kubectl apply --server-side -k training-operator
kubectl apply --server-side -k kueue
kubectl -n kubeflow rollout status deployment/training-operator --timeout=5m
kubectl -n kueue-system rollout status deployment/kueue-controller-manager --timeout=5m
