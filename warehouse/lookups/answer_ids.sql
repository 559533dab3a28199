-- Ids of the answers of a model.
SELECT answer_id
FROM answers
WHERE model = $model;
