{{/* Every helper that depends on a role is given (dict "root" $ "role" "node" "values" .Values.proxy). */}}

{{- define "fairlead.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "fairlead.name" -}}
fairlead-{{ .role }}
{{- end -}}

{{/* What a DaemonSet is known by for ever: it cannot be changed. */}}
{{- define "fairlead.selector" -}}
app.kubernetes.io/name: fairlead
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{- define "fairlead.labels" -}}
{{- include "fairlead.selector" . }}
app.kubernetes.io/part-of: fairlead
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Listen on every address of the family that the cluster uses first. */}}
{{- define "fairlead.anyAddress" -}}
{{- if contains ":" .Values.dns.clusterIP -}}[::]{{- else -}}0.0.0.0{{- end -}}
{{- end -}}

{{- define "fairlead.trafficDistribution" -}}
{{- $wanted := .Values.dns.trafficDistribution -}}
{{- if ne $wanted "auto" -}}
{{ $wanted }}
{{- else if semverCompare ">=1.34.0-0" .Capabilities.KubeVersion.Version -}}
PreferSameNode
{{- else if semverCompare ">=1.31.0-0" .Capabilities.KubeVersion.Version -}}
PreferClose
{{- end -}}
{{- end -}}

{{/* The Service by which Ingresses are found, NAMESPACE/NAME: the one named, else our own. */}}
{{- define "fairlead.publishService" -}}
{{- $ingress := .Values.ingress -}}
{{- if $ingress.publish.service -}}
{{ $ingress.publish.service }}
{{- else if and $ingress.service.enabled (not $ingress.publish.addresses) -}}
{{ .Release.Namespace }}/fairlead-ingress
{{- end -}}
{{- end -}}

{{/* Settings every agent has. The environment, not flags: they are one place, and `kubectl exec` sees them too. */}}
{{- define "fairlead.env" -}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: FAIRLEAD_ADMIN_SOCKET
  value: /run/fairlead/admin.sock
- name: FAIRLEAD_CONFIG
  value: /etc/fairlead/config.yaml
- name: FAIRLEAD_LOG_FORMAT
  value: {{ .root.Values.logFormat }}
{{- end -}}

{{/* A directory, not a single file (subPath): only so does a change of the ConfigMap reach a running pod. */}}
{{- define "fairlead.mounts" -}}
- {name: config, mountPath: /etc/fairlead, readOnly: true}
- {name: run, mountPath: /run/fairlead}
{{- end -}}

{{- define "fairlead.volumes" -}}
- name: config
  configMap:
    name: fairlead
    items: [{key: {{ .role }}.yaml, path: config.yaml}]
- name: run
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- end -}}

{{/* On a node's own network a port tells only that some process answers: the agent before, the next one, kube-proxy.
     So hostNetwork pods are asked through a socket in their own file system. Starting a process for that takes the node
     30 ms: questions are few, and wait a little for their answer. */}}
{{- define "fairlead.execProbes" -}}
startupProbe:
  exec: {command: [fairlead, probe, live, --within=10]}
  timeoutSeconds: 12
  failureThreshold: 6
livenessProbe:
  exec: {command: [fairlead, probe, live]}
  periodSeconds: 30
  timeoutSeconds: 10
  failureThreshold: 4
readinessProbe:
  exec: {command: [fairlead, probe, ready, --within=3]}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 1
{{- end -}}

{{- define "fairlead.podSpec" -}}
serviceAccountName: {{ include "fairlead.name" . }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
priorityClassName: {{ .values.priorityClassName }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
nodeSelector:
  kubernetes.io/os: linux
  {{- with .values.nodeSelector }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "fairlead.podMetadata" -}}
{{- with .values.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
labels:
  {{- include "fairlead.labels" . | nindent 2 }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "fairlead.container" -}}
image: {{ include "fairlead.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
# The last lines of the log show up in the pod's status.
terminationMessagePolicy: FallbackToLogsOnError
resources: {{- toYaml .values.resources | nindent 2 }}
{{- end -}}

{{- define "fairlead.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "fairlead.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "fairlead.labels" . | nindent 4 }}
  {{- with .values.serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "fairlead.clusterRoleBinding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ include "fairlead.name" . }}
  labels: {{- include "fairlead.labels" . | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ include "fairlead.name" . }}}
subjects:
  - {kind: ServiceAccount, name: {{ include "fairlead.name" . }}, namespace: {{ .root.Release.Namespace }}}
{{- end -}}

{{- define "fairlead.podDisruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "fairlead.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "fairlead.labels" . | nindent 4 }}
spec:
  minAvailable: {{ .values.podDisruptionBudget.minAvailable }}
  selector:
    matchLabels: {{- include "fairlead.selector" . | nindent 6 }}
{{- end -}}
