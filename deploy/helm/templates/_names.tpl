{{/* The image of a service: registry, name, and digest or tag. Takes the root and the service's values. */}}
{{- define "image" -}}
{{- $image := .of.image -}}
{{- $name := $image.name -}}
{{- if .root.Values.image.registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .root.Values.image.registry) $name }}{{ end -}}
{{- if $image.digest }}{{ $name }}@{{ $image.digest }}{{ else }}{{ $name }}:{{ $image.tag | default .root.Chart.AppVersion }}{{ end -}}
{{- end -}}

{{/* The variable of a setting: below kafka.properties a dot is an underscore, elsewhere two. Takes service and setting. */}}
{{- define "variable" -}}
{{- $prefix := .service | replace "-" "_" -}}
{{- $property := trimPrefix "kafka.properties." .setting -}}
{{- if ne $property .setting -}}
{{ printf "%s__kafka__properties__%s" $prefix ($property | replace "." "_") | upper }}
{{- else -}}
{{ printf "%s__%s" $prefix (.setting | replace "." "__") | upper }}
{{- end -}}
{{- end -}}

{{/* What is set of a service, as data of a ConfigMap. Takes service and its values. */}}
{{- define "settings" -}}
{{- $service := .service -}}
{{- range $setting, $value := .of.settings }}
{{ include "variable" (dict "service" $service "setting" $setting) }}: {{ $value | quote }}
{{- end }}
{{- $secret := .of.secret.name }}
{{- range $setting, $key := .of.secret.settings }}
{{ include "variable" (dict "service" $service "setting" $setting) }}_FILE: {{ printf "/run/secrets/%s/%s" $service $key }}
{{- end }}
{{- end -}}

{{/* What every pod has in common: it runs as nobody, writes nothing and knows nothing of the cluster. */}}
{{- define "pod" -}}
automountServiceAccountToken: false
# Else a Service called order-service sets ORDER_SERVICE_PORT and more in every container.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  # The files of secrets are for this group alone.
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* The services of this installation: their values by name, with port and management port. */}}
{{- define "services" -}}
{{- if .Values.orderService.enabled }}
order-service: {{ dict "http" 8080 "management" 9080 "of" .Values.orderService | toJson }}
{{- end }}
{{- if .Values.activityService.enabled }}
activity-service: {{ dict "http" 8081 "management" 9081 "of" .Values.activityService | toJson }}
{{- end }}
{{- end -}}
